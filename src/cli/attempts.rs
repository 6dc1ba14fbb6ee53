//! `redeliver attempts`: the record, as JSON and for people.

use std::io::Write;

use chrono::TimeDelta;

use super::app::App;
use super::args::{AttemptsArguments, Format, OutcomeArgument};
use super::exit::{Exit, Failure};
use super::json_lines;
use super::repository::parse_key;
use super::terminal;
use crate::audit::{ATTEMPT_COLUMNS, attempt_json, attempt_rows};
use crate::mail::Outcome;
use crate::store::{AttemptFilter, Span};
use crate::text::Table;

/// Attempts read from the store at once.
const PAGE: usize = 100;

pub(super) async fn run(app: &App, arguments: AttemptsArguments, out: &mut impl Write) -> Result<Exit, Failure> {
    let now = app.clock.now();
    let since =
        arguments.since.and_then(|age| TimeDelta::from_std(age).ok()).and_then(|age| now.checked_sub_signed(age));
    let outcome = arguments.outcome.map(|outcome| match outcome {
        OutcomeArgument::Delivered => Outcome::Delivered,
        OutcomeArgument::Deferred => Outcome::Deferred,
        OutcomeArgument::Failed => Outcome::Failed,
    });
    let key = arguments.key.as_deref().map(parse_key).transpose()?;
    let filter = AttemptFilter { key, recipient: arguments.recipient, outcome, since, ..AttemptFilter::default() };
    let mut table = Table::new(&ATTEMPT_COLUMNS);
    let (mut span, mut number) = (Some(Span::of(PAGE)), 0_u64);
    while let Some(wanted) = span.take() {
        let page = app.store.attempts(&filter, &wanted).await?;
        span = page.next.map(|next| wanted.after(Some(next)));
        for attempt in &page.items {
            number += 1;
            match arguments.format {
                Format::Json => json_lines::write(out, &attempt_json(attempt))?,
                Format::Text => attempt_rows(attempt, &filter).iter().for_each(|row| table.row(row)),
            }
        }
        if arguments.format == Format::Text {
            write!(out, "{}", table.block(terminal::width()))?;
        }
    }
    if arguments.format == Format::Text && number == 0 {
        writeln!(out, "no attempts")?;
    }
    Ok(Exit::Ok)
}
