//! `redeliver groups` and `redeliver operations`: failures by cause, and what was done about them.

use std::io::Write;

use super::app::App;
use super::args::Format;
use super::exit::{Exit, Failure};
use super::{json_lines, repository, terminal};
use crate::audit::{GROUP_COLUMNS, OPERATION_COLUMNS, group_json, group_row, operation_json, operation_row};
use crate::store::{GroupFilter, Span};
use crate::text::Table;

/// What is read from the store at once.
const PAGE: usize = 100;

pub(super) async fn groups(
    app: &App,
    repository: Option<String>,
    format: Format,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let repository = match repository {
        Some(text) => Some(repository::resolve(app, &text).await?),
        None => None,
    };
    let filter = GroupFilter { repository, id: None };
    let mut table = Table::new(&GROUP_COLUMNS);
    let (mut span, mut any) = (Span::of(PAGE), false);
    loop {
        let page = app.store.groups(&filter, &span).await?;
        any |= !page.items.is_empty();
        for group in &page.items {
            match format {
                Format::Json => json_lines::write(out, &group_json(group))?,
                Format::Text => table.row(&group_row(group, app.clock.now())),
            }
        }
        if format == Format::Text && any {
            write!(out, "{}", table.block(terminal::width()))?;
        }
        let Some(next) = page.next else { break };
        span = span.after(Some(next));
    }
    if format == Format::Text && !any {
        writeln!(out, "no failures")?;
    }
    Ok(Exit::Ok)
}

pub(super) async fn operations(app: &App, limit: usize, format: Format, out: &mut impl Write) -> Result<Exit, Failure> {
    let page = app.store.operations(&Span::of(limit).newest_first()).await?;
    let mut table = Table::new(&OPERATION_COLUMNS);
    for operation in &page.items {
        match format {
            Format::Json => json_lines::write(out, &operation_json(operation))?,
            Format::Text => table.row(&operation_row(operation)),
        }
    }
    if format == Format::Text {
        let text = if page.items.is_empty() { "no operations\n".to_owned() } else { table.block(terminal::width()) };
        write!(out, "{text}")?;
    }
    Ok(Exit::Ok)
}
