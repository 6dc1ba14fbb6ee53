//! A text of all that a store holds, the same for the same mails whatever the backend: for
//! tests that compare a whole store with what it should be.

use std::fmt::Write;

use super::super::*;
use crate::mail::Attempt;

/// Everything there is to see in `store`, a line each.
pub(in crate::store) async fn of(store: &dyn Store) -> String {
    let mut picture = String::new();
    for (place, sums) in store.sums().await.expect("sums") {
        let name = match &place {
            Place::Spool => "spool".to_owned(),
            Place::Repository(path) => path.to_string(),
        };
        let _ = writeln!(picture, "{name}: {} mails, {} octets, {:?}", sums.mails, sums.octets, sums.by_passes);
        let mut pages = Pages::new(store, place.clone(), MailFilter::default());
        while let Some(page) = pages.next().await.expect("a page") {
            for listed in &page {
                mail(store, listed, &mut picture).await;
            }
        }
    }
    let attempts = store.attempts(&AttemptFilter::default(), &Span::of(usize::MAX)).await.expect("attempts");
    attempts.items.iter().for_each(|one| attempt(one, &mut picture));
    for run in store.runs(None, &Span::of(usize::MAX).newest_first()).await.expect("runs").items {
        let Run { job, trigger, counts, failure, finished, .. } = run;
        let _ = writeln!(picture, "run of {job} by {trigger}: {counts:?}, ended {}, {failure:?}", finished.is_some());
    }
    for one in store.operations(&Span::of(usize::MAX)).await.expect("operations").items {
        let Operation { id, who, verb, done, in_hand, gone, .. } = one;
        let _ = writeln!(picture, "operation {id}: {verb} by {who}: {done} done, {in_hand} in hand, {gone} gone");
    }
    picture
}

async fn mail(store: &dyn Store, listed: &Listed, picture: &mut String) {
    let mail = &listed.mail;
    let recipients: Vec<_> = mail.envelope.recipients.iter().map(ToString::to_string).collect();
    let mark = if listed.in_hand { " in hand" } else { "" };
    let octets = store.content(mail.message, 0).await.map(|row| row.len()).unwrap_or_default();
    let _ = writeln!(
        picture,
        "  {}{mark}: {} -> {} in {}, {} passes, {octets} octets read",
        mail.key,
        mail.envelope.reverse_path,
        recipients.join(" "),
        mail.state,
        mail.passes(),
    );
    for (name, value) in mail.attributes.iter() {
        let _ = writeln!(picture, "    {name} = {value}");
    }
}

fn attempt(attempt: &Attempt, picture: &mut String) {
    let Attempt { key, number, state, counted, .. } = attempt;
    let _ = writeln!(picture, "attempt {number} of {key}: {state:?}, counted {counted}");
    for one in &attempt.recipients {
        let _ = writeln!(picture, "  {} {} at {}: {:?}", one.recipient, one.outcome, one.stage, one.code);
    }
    for line in &attempt.dialogue {
        let _ = writeln!(picture, "  {:?} {}", line.from, line.text);
    }
}
