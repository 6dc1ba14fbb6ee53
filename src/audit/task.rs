//! Tasks as James's webadmin shows them.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::store::Task;
use crate::text::rfc3339;

/// James's format of dates: `2026-07-30T19:01:56.770+0000`.
pub fn james_date(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%dT%H:%M:%S%.3f+0000").to_string()
}

/// A task's details. `additionalInformation` has what was asked for, and how far it is.
pub fn task_json(task: &Task) -> Value {
    let mut information = json!({"type": task.kind});
    for stored in [&task.parameters, &task.details] {
        let members = serde_json::from_str::<Value>(stored).ok();
        for (name, value) in members.as_ref().and_then(Value::as_object).into_iter().flatten() {
            information[name] = value.clone();
        }
    }
    let cancelled_from = information.as_object_mut().and_then(|members| members.shift_remove("cancelledFrom"));
    let noted = task.finished.or(task.started).unwrap_or(task.submitted);
    information["timestamp"] = rfc3339(noted).into();
    let mut object = json!({
        "taskId": task.id,
        "type": task.kind,
        "status": task.status,
        "submittedFrom": task.who,
        "executedOn": null,
        "cancelledFrom": cancelled_from,
        "additionalInformation": information,
        "operation": task.operation,
        "done": task.done,
        "expected": task.expected,
        "submitDate": james_date(task.submitted),
    });
    if let Some(started) = task.started {
        object["startedDate"] = james_date(started).into();
    }
    // James leaves out the dates that are not.
    let ended = match task.status.as_str() {
        "completed" => "completedDate",
        "canceled" => "canceledDate",
        _ => "failedDate",
    };
    if let Some(finished) = task.finished {
        object[ended] = james_date(finished).into();
    }
    object
}
