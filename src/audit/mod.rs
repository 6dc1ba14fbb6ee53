//! What is shown: a mail, its attempts, runs, jobs and schedules, what waits, and failures
//! by cause, each as JSON for scripts and as text for people.
//!
//! Command line and HTTP show the same, because both ask here. Nothing here changes
//! anything; that is `operations`.

mod attempt;
mod bundle;
mod chart;
mod digest;
mod group;
mod mail;
mod message;
mod numbers;
mod operation;
mod peer;
mod queue;
mod repository;
mod run;
mod schedule;
mod task;
mod webadmin;
mod zip;

pub use attempt::{ATTEMPT_COLUMNS, attempt_json, attempt_picture, attempt_rows};
pub use bundle::{Evidence, Extent, NoBundle, bundle};
pub use chart::{Band, age_bars, ages, outcome_bars, period_name, recipients_of, sparkline, timeline, timeline_since};
pub use digest::{Digest, Example, Group, held_back};
pub use group::{GROUP_COLUMNS, group_json, group_row};
pub use mail::{mail_json, mail_picture, whole_mail_json};
pub use message::{header, header_field, header_of, message};
pub use numbers::stored_metrics;
pub use operation::{OPERATION_COLUMNS, gone_json, gone_words, operation_json, operation_row, operation_words};
pub use peer::{DownView, OutcomesView, PEER_COLUMNS, PeerView, peers};
pub use queue::{
    Queue, QueuePage, QueueTotal, WAITING_COLUMNS, Waiting, waiting, waiting_json, waiting_row, whereabouts,
};
pub use repository::repository_json;
pub use run::{RUN_COLUMNS, check_json, import_json, result_json, run_json, run_row, sweep_json};
pub use schedule::{JOB_COLUMNS, JobView, PauseView, SCHEDULE_COLUMNS, ScheduleView};
pub use task::{james_date, task_json};
pub use webadmin::{MailFields, webadmin_mail_json};

#[cfg(test)]
pub(crate) use digest::tests::failure;

use crate::mail::Recorded;

/// What stands in a column where there is nothing to say.
const NOTHING: &str = "-";

/// The reply, or what stands for it.
fn said(recorded: &Recorded) -> String {
    recorded.reply.clone().or_else(|| recorded.cause.clone()).unwrap_or_default()
}

fn or_nothing(value: Option<impl ToString>) -> String {
    value.map_or(NOTHING.to_owned(), |value| value.to_string())
}
