//! What the parameters of the routes are, each written down once: a route names those that it
//! takes, and the document has their schemas and descriptions from here.

use serde_json::{Map, Value, json};

use crate::operations::Conditions;

/// A parameter by its name, on paths that begin so, or with a method in front; the first that fits
/// is meant. The schema is JSON, or the name of a pattern in [`PATTERNS`].
type Row = (&'static str, &'static str, &'static str, &'static str);

#[rustfmt::skip]
const PARAMETERS: &[Row] = &[
    ("repository", "/mailRepositories", "", "URL, path or last segment"),
    ("repository", "/groups", "", "Only in this repository"),
    ("key", "", "key", "The mail"),
    ("id", "/tasks", "task", "The task"),
    ("id", "/groups", "group", "The group"),
    ("name", "/mailQueues", "", "The queue"),
    ("name", "/jobs", "", "The job"),
    ("name", "/schedules", "", "The schedule"),
    ("name", "/healthcheck", "", "The check"),
    ("protocol", "", "", "A URL scheme of the configuration"),
    // Of James's lists.
    ("limit", "patch /mailRepositories", r#"{"minimum": 0}"#, "So many at most; 0 for all"),
    ("limit", "/mailRepositories", r#"{"minimum": 1}"#, "So many at most"),
    ("limit", "/mailQueues", r#"{"minimum": 1}"#, "So many at most; 100 where nothing is said"),
    ("limit", "/tasks", r#"{"minimum": 1}"#, "So many at most; never more than 10 000"),
    ("offset", "", r#"{"minimum": 0}"#, "Pass over so many"),
    ("updatedBefore", "", "span", "Came to rest at least so long ago; in seconds, or with a unit"),
    ("updatedAfter", "", "span", "Came to rest at most so long ago; in seconds, or with a unit"),
    ("remoteAddress", "", "", "The address of the client that brought it"),
    ("additionalFields", "", "fields", "With commas, any of attributes, headers, textBody, htmlBody, messageSize, perRecipientsHeaders, attempts, acknowledged, operations"),
    ("delayed", "patch /mailQueues", r#"{"const": true}"#, "Those that wait for a time"),
    ("delayed", "/mailQueues", "", "Only those that wait for a time: there are none"),
    ("status", "", r#"{"enum": ["waiting", "inProgress", "canceledRequested", "completed", "canceled", "failed"]}"#, "Only tasks with this status"),
    ("type", "/tasks", "", "Only tasks of this type"),
    ("submittedBefore", "", "time", "RFC 3339; also submittedAfter, and for started, completed, failed"),
    ("timeout", "", "patience", "For so long at most; in seconds, or with a unit"),
    ("check", "", "", "Only these checks; may be repeated"),
    ("strict", "", "", "Degraded is 503 too"),
    // Of ours.
    ("limit", "", r#"{"minimum": 1, "maximum": 1000}"#, "100 where nothing is said"),
    ("cursor", "/groups", "place of a group", "`next` of the page before"),
    ("cursor", "", "place", "`next` of the page before"),
    ("since", "", "moment", "An age, or RFC 3339"),
    ("until", "/attempts", "moment", "An age, or RFC 3339"),
    ("until", "", "place", "Only what was there at a dry run: its answer"),
    ("outcome", "", r#"{"enum": ["delivered", "deferred", "failed"]}"#, "Attempts with such an outcome"),
    ("job", "", "", "Only those of this job"),
    ("dryRun", "", "", "Only count"),
    ("message", "", "", "With the message"),
    ("full", "", "", "With all next hops, our own addresses and the attributes; not for a read-only role"),
    ("nextHop", "/mailRepositories/{repository}/mails/{key}/bundle", "filled", "About whom; needed where there were several"),
    // Of what reprocesses.
    ("action", "", r#"{"enum": ["reprocess"]}"#, "Not needed with a body"),
    ("queue", "", r#"{"enum": ["spool"]}"#, "The queue that they enter"),
    ("processor", "", "", "Which they enter; else that of their state where it delivers, and that of new mail"),
    ("consume", "", "", "`false` leaves them where they are, and copies with keys of their own enter"),
    ("maxRetries", "", r#"{"minimum": 0}"#, "Only those reprocessed less often"),
    ("forRecipient", "", "address", "Only those for him"),
    ("resetCounters", "", "", "Forget how often they were tried"),
    // The conditions on mails, and on attempts.
    ("sender", "/mailQueues", "", "Only his"),
    ("recipient", "/mailQueues", "", "Only those for him"),
    ("sender", "/attempts", "", "The reverse-path, `<>` for null, or *@domain"),
    ("recipient", "/attempts", "", "An address, or *@domain"),
    ("code", "/attempts", r#"{"minimum": 0, "maximum": 65535}"#, "A reply code"),
    ("nextHop", "/attempts", "", "A next hop"),
    ("sender", "", "somebody", "The reverse-path, `<>` for null, or *@domain"),
    ("recipient", "", "somebody", "An address, or *@domain"),
    ("domain", "", "domain", "A recipient's domain"),
    ("code", "", r#"{"minimum": 100, "maximum": 999}"#, "The last reply code"),
    ("nextHop", "", "filled", "The next hop of the last attempt"),
    ("text", "", "filled", "Words of the last failure"),
    ("group", "", "group", "A failure group"),
    ("olderThan", "", "moment", "An age, or RFC 3339"),
    ("newerThan", "", "moment", "An age, or RFC 3339"),
    ("passes", "", r#"{"minimum": 0, "maximum": 4294967295}"#, "Passes counted"),
    ("unacknowledged", "", "", "Only those that nobody has acknowledged"),
];

/// How values are written, where that is not all texts.
#[rustfmt::skip]
const PATTERNS: &[(&str, &str)] = &[
    ("key", "^[!-~]{1,64}$"),
    ("task", "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"),
    ("group", "^[0-9a-f]{12}$"),
    ("place", "^[0-9]{1,18}$"),
    ("place of a group", "^[0-9]{1,9}-[0-9a-f]{12}-[0-9]{1,9}$"),
    ("filled", r"\S"),
    ("address", "^[A-Za-z0-9.]{1,40}@[A-Za-z0-9]{1,40}$"),
    ("somebody", "@|^<>$"),
    ("domain", "^[^@]+$"),
    ("span", "^([0-9]{1,6}(s|m)?|[0-9]{1,5}h|[0-9]{1,4}d)$"),
    ("patience", "^([1-9][0-9]{0,3}(s|m|h)?|[1-9][0-9]?d)$"),
    (
        "time",
        r"^20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?(Z|[+-](0[0-9]|1[0-2]):[0-5][0-9])$",
    ),
    (
        "moment",
        r"^([0-9]{1,6}(s|m)|[0-9]{1,5}h|[0-9]{1,4}d|20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?(Z|[+-](0[0-9]|1[0-2]):[0-5][0-9]))$",
    ),
    (
        "fields",
        "^(|(attributes|headers|textBody|htmlBody|messageSize|perRecipientsHeaders|attempts|acknowledged|operations)(,(attributes|headers|textBody|htmlBody|messageSize|perRecipientsHeaders|attempts|acknowledged|operations)){0,9})$",
    ),
];

/// Schema and description of a parameter of this name on this path.
fn known(method: &str, path: &str, name: &str) -> Option<(Map<String, Value>, &'static str)> {
    let call = format!("{method} {path}");
    let fits = |(known, on, ..): &&Row| *known == name && (path.starts_with(on) || call.starts_with(on));
    let (_, _, schema, description) = PARAMETERS.iter().find(fits)?;
    let schema = match PATTERNS.iter().find(|(pattern, _)| pattern == schema) {
        Some((_, pattern)) => json!({"pattern": pattern}),
        None if schema.is_empty() => json!({}),
        None => serde_json::from_str(schema).ok()?,
    };
    Some((schema.as_object()?.clone(), description))
}

/// Says of each parameter of the document what it is, and names the conditions where a call
/// for many mails takes them.
pub(super) fn describe(document: &mut Value) {
    for (path, method, operation) in operations(document) {
        let parameters = operation.entry("parameters").or_insert_with(|| json!([]));
        let Some(parameters) = parameters.as_array_mut() else { continue };
        let named = |name: &str, all: &[Value]| all.iter().any(|one| one["name"] == name && one["in"] == "query");
        if path == "/mailRepositories/{repository}/mails" && named("dryRun", parameters) {
            parameters.extend(Conditions::NAMES.iter().map(|name| condition(name)));
        }
        for parameter in parameters.iter_mut() {
            let name = parameter["name"].as_str().unwrap_or_default().to_owned();
            let Some((schema, description)) = known(&method, &path, &name) else { continue };
            parameter["description"] = description.into();
            if let Some(said) = parameter["schema"].as_object_mut() {
                said.extend(schema);
            }
        }
    }
}

/// A parameter that is a condition on mails.
fn condition(name: &str) -> Value {
    let kind = match name {
        "code" | "passes" => "integer",
        "unacknowledged" => "boolean",
        _ => "string",
    };
    json!({"name": name, "in": "query", "required": false, "schema": {"type": kind}})
}

/// Gives each operation a name of its own, made of its method and path, lets a body that may be
/// left out be no `null`, and says how one of another type is answered.
pub(super) fn name(document: &mut Value) {
    for (path, method, operation) in operations(document) {
        let words: Vec<_> = path.split(['/', '{', '}', '.']).filter(|word| !word.is_empty()).collect();
        operation.insert("operationId".to_owned(), [&[method.as_str()], &words[..]].concat().join("-").into());
        if let Some(body) = operation.get_mut("requestBody") {
            may_be_left_out(body);
            let refusal = json!({"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}});
            let description = "A body of another type, or coded";
            if let Some(responses) = operation.get_mut("responses") {
                responses["415"] = json!({"description": description, "content": refusal});
            }
        }
    }
}

fn may_be_left_out(body: &mut Value) {
    let Some(schema) = body.pointer_mut("/content/application~1json/schema") else { return };
    let some = schema["oneOf"].as_array().and_then(|all| all.iter().find(|one| one["type"] != "null")).cloned();
    if let Some(some) = some {
        *schema = some;
        body["required"] = false.into();
    }
}

/// Each operation with its path and method.
fn operations(document: &mut Value) -> impl Iterator<Item = (String, String, &mut Map<String, Value>)> {
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    paths.flat_map(|(path, item)| {
        let path = path.clone();
        let methods = item.as_object_mut().into_iter().flatten();
        methods.filter_map(move |(method, operation)| Some((path.clone(), method.clone(), operation.as_object_mut()?)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_values_that_the_patterns_allow_are_read() {
        let pattern = |name| PATTERNS.iter().find(|(known, _)| *known == name).map(|(_, pattern)| *pattern);
        let spans = "([0-9]{1,6}(s|m)?|[0-9]{1,5}h|[0-9]{1,4}d)";
        assert_eq!(pattern("span"), Some(format!("^{spans}$").as_str()));
        for span in ["999999s", "999999m", "99999h", "9999d"] {
            assert!(crate::yaml::parse_duration(span).is_some(), "{span}");
        }
    }

    #[test]
    fn each_row_is_a_schema_and_each_condition_is_known() {
        for (name, on, schema, _) in PARAMETERS {
            let (method, path) = on.split_once(' ').unwrap_or(("get", on));
            assert!(known(method, path, name).is_some(), "{name} on {on:?}: {schema}");
        }
        for name in Conditions::NAMES {
            assert!(known("delete", "/mailRepositories/{repository}/mails", name).is_some(), "{name}");
        }
    }
}
