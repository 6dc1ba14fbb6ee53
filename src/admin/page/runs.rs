//! Runs as rows of a table.

use super::html::{Html, count, grouped, link, mark, short, when};
use super::url;
use crate::store::{Run, Time};
use crate::text::rfc3339;

/// A run that is over, or going.
pub(super) struct Ran {
    pub(super) job: Html,
    pub(super) started: Html,
    /// What started it.
    pub(super) trigger: String,
    pub(super) took: String,
    pub(super) ended: Html,
    /// Mails taken, as a link to the attempts of that time.
    pub(super) mails: Html,
    /// Recipients by what became of them.
    pub(super) result: String,
}

pub(super) fn ran(run: &Run, now: Time) -> Ran {
    let counts = &run.counts;
    Ran {
        job: link(&url::job(&run.job), &run.job),
        started: when(run.started, now),
        trigger: short(&run.trigger),
        took: took(run, now),
        ended: match (&run.failure, run.finished) {
            (Some(why), _) => mark("bad", "failed").and(&Html::text(short(why))),
            (None, None) => mark("wait", "going"),
            (None, Some(_)) if counts.errors > 0 => mark("bad", "errors"),
            (None, Some(_)) => mark("good", "ended"),
        },
        mails: count(&attempts(run), counts.selected),
        result: result(run),
    }
}

/// What was attempted while it went.
fn attempts(run: &Run) -> String {
    let (since, until) = (rfc3339(run.started), run.finished.map(rfc3339));
    let mut parameters = vec![("since", since.as_str())];
    parameters.extend(until.as_deref().map(|until| ("until", until)));
    url::with("/ui/attempts", &parameters)
}

/// `0.4 s`, `3 m 20 s`.
fn took(run: &Run, now: Time) -> String {
    let millis = (run.finished.unwrap_or(now) - run.started).num_milliseconds().max(0);
    match millis {
        0..60_000 => format!("{}.{} s", millis / 1000, millis % 1000 / 100),
        _ => format!("{} m {} s", millis / 60_000, millis % 60_000 / 1000),
    }
}

/// `12 delivered, 3 deferred`.
fn result(run: &Run) -> String {
    let counts = &run.counts;
    let all = [
        (counts.delivered, "delivered"),
        (counts.deferred, "deferred"),
        (counts.failed, "failed"),
        (counts.promoted, "promoted"),
        (counts.errors, "errors"),
    ];
    let some = all.iter().filter(|(number, _)| *number > 0);
    let some: Vec<_> = some.map(|(number, word)| format!("{} {word}", grouped(*number))).collect();
    if some.is_empty() { "-".to_owned() } else { some.join(", ") }
}
