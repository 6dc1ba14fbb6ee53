//! The HTTP routes that James's operators know, and ours, over a real service.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use super::{Service, served, until};
use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Script, SmtpSink, on, script};

const TEMPORARY: &str = "cassandra%3A%2F%2Fvar%2Fmail%2Ferror%2Fremote-delivery%2Ftemporary%2F";
const TEMPORARY_PATH: &str = "var/mail/error/remote-delivery/temporary";

/// An answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(super) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}\n{}", self.head, self.text());
        self
    }
}

/// A request with this body and header lines.
pub(super) fn ask_with(service: &Service, method: &str, path: &str, header: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(service.admin).expect("it listens");
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {}\r\n{header}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}",
        service.admin
    )
    .expect("sent");
    let mut octets = Vec::new();
    stream.read_to_end(&mut octets).expect("an answer");
    let end = octets.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8(octets[..end].to_vec()).expect("text");
    let body = octets[end + 4..].to_vec();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Answer { status, body: if is_chunked { unchunked(&body) } else { body }, head }
}

fn unchunked(mut octets: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = octets.windows(2).position(|pair| pair == b"\r\n").expect("a size");
        let size = usize::from_str_radix(std::str::from_utf8(&octets[..end]).expect("text"), 16).expect("a size");
        octets = &octets[end + 2..];
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&octets[..size]);
        octets = &octets[size + 2..];
    }
}

pub(super) fn ask(service: &Service, method: &str, path: &str) -> Answer {
    ask_with(service, method, path, "", "")
}

pub(super) fn get(service: &Service, path: &str) -> Value {
    ask(service, "GET", path).expect(200).json()
}

/// Waits for the task that an answer names; its details.
pub(super) fn task(service: &Service, answer: Answer) -> Value {
    let answer = answer.expect(201);
    let id = answer.json()["taskId"].as_str().expect("an id").to_owned();
    assert!(answer.head.contains(&format!("/tasks/{id}")), "Location: {}", answer.head);
    get(service, &format!("/tasks/{id}/await?timeout=20"))
}

/// A service whose temporary repository has so many mails.
fn with_deferred(peer: &SmtpSink, mails: usize) -> (Relay, Service) {
    let relay = served(Setup::gateway(peer.address()));
    // As in the configuration of James.
    relay.reconfigure("path: redeliver.db }", "path: redeliver.db }, cassandra: sqlite");
    let service = Service::start(&relay);
    for number in 0..mails {
        service.submit(&[&format!("n{number}@later.example")], &format!("m{number}"));
    }
    service.wait_until_settled();
    (relay, service)
}

pub(super) fn deferring() -> SmtpSink {
    SmtpSink::start(script![on("RCPT TO:<never") => "550 5.1.1 no such user", on("RCPT TO:<n") => "451 4.2.0 later"])
}

#[test]
fn both_curl_lines_of_the_documentation_work_as_they_stand() {
    let peer = SmtpSink::start(script![on("RCPT") => "451 4.2.0 later"]);
    let (relay, service) = with_deferred(&peer, 2);
    let keys = get(&service, &format!("/mailRepositories/{TEMPORARY}/mails"));
    let stored: Vec<_> = relay.mails("temporary").iter().map(|mail| mail["key"].clone()).collect();
    assert_eq!(keys.as_array(), Some(&stored));
    let path = format!("/mailRepositories/{TEMPORARY}/mails?action=reprocess&processor=relay");
    let done = task(&service, ask(&service, "PATCH", &path));
    assert_eq!((&done["status"], &done["type"]), (&json!("completed"), &json!("reprocessing-all")));
    let information = &done["additionalInformation"];
    for (member, value) in [
        ("type", json!("reprocessing-all")),
        ("repositoryPath", json!(TEMPORARY_PATH)),
        ("targetQueue", json!("spool")),
        ("targetProcessor", json!("relay")),
        ("consume", json!(true)),
        ("initialCount", json!(2)),
        ("remainingCount", json!(0)),
        ("forRecipient", Value::Null),
        ("limit", Value::Null),
    ] {
        assert_eq!(information[member], value, "{member} of {information}");
    }
    service.wait_until_settled();
    let mails = relay.mails("temporary");
    assert!(mails.iter().all(|mail| mail["passes"] == 2), "{mails:#?}");
    service.stop();
}

#[test]
fn without_consuming_a_copy_is_sent_round_and_the_mail_stays() {
    let peer = SmtpSink::start(script![on("RCPT") => "451 4.2.0 later"]);
    let (relay, service) = with_deferred(&peer, 2);
    let mails = "/mailRepositories/temporary/mails";
    let before = relay.mails("temporary");
    let keys: Vec<String> = before.iter().map(|mail| mail["key"].as_str().expect("a key").to_owned()).collect();
    let path = format!("{mails}?action=reprocess&consume=false");
    let dry = ask(&service, "PATCH", &format!("{path}&dryRun=true")).expect(200).json();
    assert_eq!(dry["count"], 2);
    assert_eq!(relay.mails("temporary"), before, "nothing is done");
    let done = task(&service, ask(&service, "PATCH", &path));
    let information = &done["additionalInformation"];
    assert_eq!((&done["status"], &information["consume"]), (&json!("completed"), &json!(false)), "{done}");
    assert_eq!((&information["targetProcessor"], &information["remainingCount"]), (&Value::Null, &json!(0)));
    service.wait_until_settled();
    let after = relay.mails("temporary");
    assert_eq!((after.len(), &after[..2]), (4, &before[..]), "those that stay are as they were");
    for copy in &after[2..] {
        let key = copy["key"].as_str().expect("a key");
        let shown = get(&service, &format!("{mails}/{key}?additionalFields=attributes,attempts,operations"));
        assert!(keys.iter().any(|key| shown["origin"] == **key), "{shown}");
        assert_eq!((&shown["passes"], &shown["attributes"]["mailRepository-reprocessing"]), (&json!(2), &json!("1")));
        assert_eq!(shown["attempts"].as_array().map(Vec::len), Some(2), "{shown}");
        assert_eq!(shown["operations"][0]["detail"], "relay, consume=false");
    }
    let one = format!("{mails}/{}?action=reprocess&processor=relay&consume=false", keys[0]);
    let done = task(&service, ask(&service, "PATCH", &one));
    assert_eq!((&done["status"], &done["additionalInformation"]["consume"]), (&json!("completed"), &json!(false)));
    service.wait_until_settled();
    assert_eq!(relay.size("temporary"), 5);
    ask(&service, "PATCH", &format!("{mails}?action=reprocess&consume=perhaps")).expect(400);
    service.stop();
}

#[test]
fn a_repository_is_found_by_url_path_and_last_segment() {
    let peer = deferring();
    let (_relay, service) = with_deferred(&peer, 1);
    for name in [
        TEMPORARY,
        "sqlite%3A%2F%2Fvar%2Fmail%2Ferror%2Fremote-delivery%2Ftemporary",
        "var%2Fmail%2Ferror%2Fremote-delivery%2Ftemporary%2F",
        "temporary",
    ] {
        let size = get(&service, &format!("/mailRepositories/{name}"));
        assert_eq!((&size["repository"], &size["size"]), (&json!(TEMPORARY_PATH), &json!(1)), "{name}");
        assert_eq!(get(&service, &format!("/mailRepositories/{name}/mails")).as_array().map(Vec::len), Some(1));
    }
    for name in ["nowhere", "..%2F..%2Fetc", "mysql%3A%2F%2Fvar%2Fmail%2Ferror", "remote-delivery"] {
        let refused = ask(&service, "GET", &format!("/mailRepositories/{name}")).expect(404).json();
        assert_eq!((&refused["statusCode"], &refused["type"]), (&json!(404), &json!("notFound")), "{name}");
    }
    let list = get(&service, "/mailRepositories");
    let item = json!({"repository": TEMPORARY_PATH, "path": "var%2Fmail%2Ferror%2Fremote-delivery%2Ftemporary"});
    assert!(list.as_array().expect("a list").contains(&item), "{list}");
    service.stop();
}

#[test]
fn keys_are_filtered_and_cut_as_james_does_it() {
    let peer = deferring();
    let (_relay, service) = with_deferred(&peer, 3);
    let count =
        |query: &str| get(&service, &format!("/mailRepositories/temporary/mails?{query}")).as_array().map(Vec::len);
    for (query, number) in [
        ("", 3),
        ("limit=2", 2),
        ("offset=1", 2),
        ("offset=2&limit=5", 1),
        ("offset=9", 0),
        ("recipient=N1%40later.example", 1),
        ("recipient=n1%40LATER.example", 1),
        ("recipient=*%40later.example", 3),
        ("sender=me%40example.org", 3),
        ("sender=you%40example.org", 0),
        ("updatedAfter=1h", 3),
        ("updatedBefore=3600", 0),
        ("remoteAddress=127.0.0.1", 3),
        ("remoteAddress=192.0.2.1", 0),
        ("code=451", 3),
        ("code=450", 0),
        ("text=later", 3),
        ("passes=1", 3),
        ("unacknowledged=true", 3),
        ("unknown=1", 3),
    ] {
        assert_eq!(count(query), Some(number), "{query}");
    }
    for (query, message) in [
        ("limit=x", "Can not parse limit"),
        ("limit=-1", "limit can not be negative"),
        ("limit=0", "limit can not be equal to zero"),
        ("offset=x", "Can not parse offset"),
        ("offset=-1", "offset can not be negative"),
        ("updatedBefore=soon", "updatedBefore"),
        ("code=five", "code"),
        ("remoteHost=x", "remoteHost"),
    ] {
        let refused = ask(&service, "GET", &format!("/mailRepositories/temporary/mails?{query}")).expect(400).json();
        assert!(refused["message"].as_str().is_some_and(|text| text.contains(message)), "{query}: {refused}");
    }
    service.stop();
}

#[test]
fn a_mail_is_shown_with_the_fields_asked_for_and_as_it_came() {
    let peer = deferring();
    let (relay, service) = with_deferred(&peer, 1);
    let key = relay.mails("temporary")[0]["key"].as_str().expect("a key").to_owned();
    let path = format!("/mailRepositories/temporary/mails/{key}");
    let mail = get(&service, &path);
    assert_eq!(mail["recipients"], json!(["n0@later.example"]));
    assert_eq!((&mail["sender"], &mail["remoteAddr"]), (&json!("me@example.org"), &json!("127.0.0.1")));
    for absent in ["attributes", "headers", "textBody", "messageSize", "attempts", "remoteHost"] {
        assert_eq!(mail[absent], Value::Null, "{absent}");
    }
    let mail = get(&service, &format!("{path}?additionalFields=attributes,Headers,messageSize,attempts"));
    assert_eq!(mail["attributes"]["delivery-error-code"], "451");
    assert_eq!(mail["attributes"]["is-delivery-permanent-error"], "false");
    assert_eq!(mail["headers"]["Subject"], json!(["a test"]));
    assert_eq!(mail["attempts"][0]["recipients"][0]["reply"], "451 4.2.0 later");
    let message = ask_with(&service, "GET", &path, "Accept: message/rfc822\r\n", "").expect(200);
    let exported = relay.command(&["repository", "export", "temporary", &key]).expect(0).stdout;
    assert_eq!(message.text(), exported);
    assert_eq!(mail["messageSize"], json!(exported.len()));
    let refused = ask(&service, "GET", &format!("{path}?additionalFields=nope")).expect(400).json();
    assert_eq!(refused["message"], "The field 'nope' can't be requested in additionalFields parameter");
    let refused = ask(&service, "GET", "/mailRepositories/temporary/mails/nobody").expect(404).json();
    assert_eq!(refused["message"], "Could not retrieve nobody");
    let bundle = ask(&service, "GET", &format!("{path}/bundle")).expect(200);
    assert!(bundle.body.starts_with(b"PK") && bundle.head.contains("application/zip"), "{}", bundle.head);
    service.stop();
}

/// A parameter is wrong whether or not there is anything to do.
#[test]
fn what_is_wrong_is_refused_where_there_is_nothing_to_do_too() {
    let peer = deferring();
    let (relay, service) = with_deferred(&peer, 1);
    let groups = get(&service, "/groups");
    let group = groups["items"][0]["id"].as_str().expect("a group");
    task(&service, ask(&service, "DELETE", "/mailRepositories/temporary/mails"));
    let (empty, long) = (format!("/groups/{group}/acknowledge"), format!("{{\"note\": \"{}\"}}", "x".repeat(10_001)));
    let none = "/groups/0123456789ab/acknowledge";
    for (method, path, body, status) in [
        ("POST", empty.clone(), "", 200),
        ("POST", format!("{empty}?until=null"), "", 400),
        ("POST", format!("{empty}?until=null&dryRun=true"), "", 400),
        ("POST", format!("{empty}?until=null&repository=permanent"), "", 400),
        ("POST", format!("{empty}?dryRun=1"), "", 400),
        ("POST", format!("{empty}?repository=nowhere"), "", 404),
        ("POST", empty.clone(), &long, 400),
        ("POST", none.to_owned(), "", 404),
        ("POST", format!("{none}?repository=permanent"), "", 404),
        ("DELETE", "/mailRepositories/permanent/mails?until=null".to_owned(), "", 400),
        (
            "PATCH",
            "/mailRepositories/permanent/mails?until=null".to_owned(),
            "{\"mailRepository\": \"temporary\"}",
            400,
        ),
        ("PATCH", "/mailRepositories/permanent/mails?action=reprocess&until=null".to_owned(), "", 400),
        ("GET", "/groups?cursor=null".to_owned(), "", 400),
        ("GET", "/groups?cursor=null&repository=permanent".to_owned(), "", 400),
        ("GET", "/runs?cursor=null".to_owned(), "", 400),
        ("GET", "/runs?cursor=null&job=nope".to_owned(), "", 400),
        ("GET", "/operations?cursor=null".to_owned(), "", 400),
        ("GET", "/attempts?cursor=null".to_owned(), "", 400),
        ("GET", "/attempts?cursor=null&recipient=nobody%40x.example".to_owned(), "", 400),
        ("GET", "/attempts?cursor=null&key=nope".to_owned(), "", 400),
        ("GET", "/mailRepositories/permanent/mails?limit=0".to_owned(), "", 400),
        ("GET", "/mailRepositories/permanent/mails?olderThan=never".to_owned(), "", 400),
        ("GET", "/mailRepositories/permanent/mails?group=0123456789ab".to_owned(), "", 404),
        ("DELETE", "/mailQueues/spool/mails?sender=nobody".to_owned(), "", 400),
        ("PATCH", "/mailQueues/spool/mails?delayed=perhaps".to_owned(), "{\"delayed\": false}", 400),
        ("POST", "/schedules/none/pause".to_owned(), "{\"until\": \"never\"}", 404),
        ("POST", "/jobs/retry-temporary/run?now=true".to_owned(), "", 400),
    ] {
        let answer = ask_with(&service, method, &path, "", body);
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
    }
    let operations = relay.command(&["operations", "--format", "json"]).expect(0).json();
    assert_eq!(operations.iter().filter(|one| one["verb"] == "acknowledge").count(), 0, "{operations:?}");
    service.stop();
}

#[test]
fn what_a_changing_call_does_not_know_is_named_and_nothing_is_done() {
    let peer = deferring();
    let (relay, service) = with_deferred(&peer, 1);
    let mails = "/mailRepositories/temporary/mails";
    for (method, path, named) in [
        ("DELETE", format!("{mails}?sneder=x"), "sneder"),
        ("DELETE", format!("{mails}?sender=a%40x.example&sender=b%40x.example"), "twice"),
        ("PATCH", format!("{mails}?action=reprocess&proccessor=relay"), "proccessor"),
        ("DELETE", format!("{mails}?dryRun=1"), "dryRun"),
        ("DELETE", format!("{mails}?until=null"), "null"),
        ("DELETE", format!("{mails}?until=null&dryRun=true"), "null"),
        ("PATCH", format!("{mails}?action=reprocess&dryRun=yes"), "dryRun"),
        ("PATCH", mails.to_owned(), "action"),
        ("PATCH", format!("{mails}?action=destroy"), "destroy"),
        ("PATCH", format!("{mails}?action=reprocess&processor=nope"), "nope"),
        ("PATCH", format!("{mails}?action=reprocess&queue=outgoing"), "outgoing"),
        ("PATCH", format!("{mails}?action=reprocess&limit=-1"), "negative"),
        ("PATCH", format!("{mails}?action=reprocess&maxRetries=x"), "maxRetries"),
        ("PATCH", format!("{mails}?action=reprocess&forRecipient=nobody"), "forRecipient"),
        ("PATCH", format!("{mails}?action=reprocess&group=0123456789ab"), "0123456789ab"),
        ("PUT", "/mailRepositories/var%2Fx".to_owned(), "protocol"),
        ("PUT", "/mailRepositories/var%2Fx?protocol=imap".to_owned(), "unsupported protocol"),
    ] {
        let answer = ask(&service, method, &path);
        assert!([400, 404].contains(&answer.status), "{method} {path}: {}", answer.status);
        assert!(answer.text().contains(named), "{method} {path}: {}", answer.text());
    }
    for body in ["{", "{\"mailRepository\": 7}", "{\"other\": 1}", "{\"mailRepository\": \"nowhere\"}"] {
        ask_with(&service, "PATCH", mails, "", body).expect(400);
    }
    let large = "a".repeat(3 << 20);
    let refused = ask_with(&service, "PATCH", mails, "", &large).expect(413).json();
    assert_eq!((&refused["statusCode"], &refused["type"]), (&json!(413), &json!("InvalidArgument")));
    assert_eq!(relay.size("temporary"), 1);
    assert!(relay.command(&["operations", "--format", "json"]).expect(0).json().is_empty(), "nothing was done");
    service.stop();
}

#[test]
fn mails_are_moved_removed_and_cleared_and_the_record_says_by_whom() {
    let peer = deferring();
    let (relay, service) = with_deferred(&peer, 3);
    ask(&service, "PUT", "/mailRepositories/var%2Fkept?protocol=sqlite").expect(204);
    let target = "{\"mailRepository\": \"var/kept\"}";
    let keys: Vec<String> =
        relay.mails("temporary").iter().map(|mail| mail["key"].as_str().expect("a key").to_owned()).collect();
    let one = format!("/mailRepositories/temporary/mails/{}", keys[0]);
    let dry = ask(&service, "DELETE", "/mailRepositories/temporary/mails?dryRun=true").expect(200).json();
    assert_eq!((&dry["count"], &dry["exact"], &dry["sample"]), (&json!(3), &json!(true), &json!(keys)));
    ask_with(&service, "PATCH", &one, "", target).expect(204);
    ask_with(&service, "PATCH", &one, "", target).expect(204);
    ask_with(&service, "PATCH", "/mailRepositories/temporary/mails", "", target).expect(204);
    assert_eq!((relay.size("temporary"), relay.size("var/kept")), (0, 3));
    ask(&service, "DELETE", &format!("/mailRepositories/var%2Fkept/mails/{}", keys[1])).expect(204);
    ask(&service, "DELETE", &format!("/mailRepositories/var%2Fkept/mails/{}", keys[1])).expect(204);
    // What came to rest after the dry run is not meant.
    let until = dry["until"].as_str().expect("a text").to_owned();
    let cleared = task(&service, ask(&service, "DELETE", &format!("/mailRepositories/var%2Fkept/mails?until={until}")));
    assert_eq!(relay.size("var/kept"), 2, "{cleared}");
    let cleared = task(&service, ask(&service, "DELETE", "/mailRepositories/var%2Fkept/mails"));
    assert_eq!((&cleared["status"], &cleared["type"]), (&json!("completed"), &json!("clear-mail-repository")));
    assert_eq!(relay.size("var/kept"), 0);
    let operations = get(&service, "/operations");
    let verbs: Vec<_> = operations["items"].as_array().expect("items").iter().map(|one| one["verb"].clone()).collect();
    assert_eq!(verbs, ["remove", "remove", "move", "move", "create"]);
    let last = &operations["items"][0];
    assert_eq!((&last["who"], &last["client"], &last["mails"]), (&json!("full"), &json!("127.0.0.1"), &json!(2)));
    assert_eq!(last["task"], cleared["taskId"]);
    service.stop();
}

#[test]
fn reprocessing_one_mail_fails_as_a_task_where_there_is_none() {
    let peer = deferring();
    let (relay, service) = with_deferred(&peer, 1);
    let query = "?action=reprocess&processor=relay";
    for path in ["temporary/mails/nobody", "nowhere/mails/nobody"] {
        let failed = task(&service, ask(&service, "PATCH", &format!("/mailRepositories/{path}{query}")));
        assert_eq!((&failed["status"], &failed["type"]), (&json!("failed"), &json!("reprocessing-one")), "{path}");
        assert!(failed["failedDate"].is_string() && failed["completedDate"].is_null(), "{failed}");
    }
    let key = relay.mails("temporary")[0]["key"].as_str().expect("a key").to_owned();
    let path = format!("/mailRepositories/temporary/mails/{key}{query}&resetCounters=true");
    assert_eq!(task(&service, ask(&service, "PATCH", &path))["status"], "completed");
    service.wait_until_settled();
    let mail = &relay.mails("temporary")[0];
    assert_eq!((&mail["key"], &mail["passes"]), (&json!(key), &json!(1)), "the counter began anew");
    service.stop();
}

#[test]
fn reprocessing_is_bounded_as_james_bounds_it() {
    let peer = deferring();
    let (relay, service) = with_deferred(&peer, 3);
    let reprocess = |query: &str| {
        let path = format!("/mailRepositories/temporary/mails?action=reprocess&processor=relay&{query}");
        let done = task(&service, ask(&service, "PATCH", &path));
        service.wait_until_settled();
        let mut passes: Vec<_> = relay.mails("temporary").iter().map(|mail| mail["passes"].clone()).collect();
        passes.sort_by_key(Value::as_u64);
        (done["done"].clone(), passes)
    };
    assert_eq!(reprocess("limit=1"), (json!(1), vec![json!(1), json!(1), json!(2)]));
    assert_eq!(reprocess("forRecipient=n9@later.example"), (json!(0), vec![json!(1), json!(1), json!(2)]));
    assert_eq!(reprocess("maxRetries=1"), (json!(2), vec![json!(2), json!(2), json!(2)]));
    assert_eq!(reprocess("maxRetries=0").0, json!(0));
    assert_eq!(reprocess("limit=0").0, json!(3), "0 is no limit");
    service.stop();
}

#[test]
fn failures_are_grouped_acknowledged_and_found_again() {
    let peer = deferring();
    let relay = served(Setup::gateway(peer.address()));
    let service = Service::start(&relay);
    for number in 0..2 {
        service.submit(&[&format!("never{number}@x.example")], &format!("m{number}"));
    }
    service.wait_until_settled();
    let groups = get(&service, "/groups?repository=permanent");
    let group = &groups["items"][0];
    assert_eq!((&group["count"], &group["unacknowledged"], &group["code"]), (&json!(2), &json!(2), &json!(550)));
    let id = group["id"].as_str().expect("an id");
    let path = format!("/groups/{id}/acknowledge");
    let dry = ask(&service, "POST", &format!("{path}?dryRun=true")).expect(200).json();
    assert_eq!(dry["items"][0]["count"], 2);
    ask_with(&service, "POST", &path, "", "{\"note\": \"known\", \"x\": 1}").expect(400);
    ask_with(&service, "POST", &path, "", "{\"note\": \"known\"}").expect(200);
    ask(&service, "POST", "/groups/0123456789ab/acknowledge").expect(404);
    assert_eq!(get(&service, "/groups")["items"][0]["unacknowledged"], 0);
    let key = relay.mails("permanent")[0]["key"].as_str().expect("a key").to_owned();
    let one = format!("/mailRepositories/permanent/mails/{key}");
    let mail = get(&service, &format!("{one}?additionalFields=acknowledged"));
    assert_eq!((&mail["acknowledged"]["note"], &mail["acknowledged"]["by"]), (&json!("known"), &json!("full")));
    ask(&service, "DELETE", &format!("{one}/acknowledge")).expect(204);
    let unacknowledged = format!("/mailRepositories/permanent/mails?unacknowledged=true&group={id}");
    assert_eq!(get(&service, &unacknowledged), json!([key]));
    ask_with(&service, "POST", &format!("{one}/acknowledge"), "", "{\"note\": \"seen\"}").expect(204);
    let peers = get(&service, "/peers");
    let hop = &peers["items"][0];
    assert_eq!(
        (&hop["outcomes"]["failed"], &hop["down"], &hop["waiting"]),
        (&json!(2), &Value::Null, &json!(0)),
        "{peers}"
    );
    let attempts = get(&service, "/attempts?outcome=failed&code=550&recipient=never0%40x.example");
    assert_eq!(attempts["items"].as_array().map(Vec::len), Some(1), "{attempts}");
    let first = get(&service, "/attempts?limit=1");
    let cursor = first["next"].as_str().expect("there is more");
    let second = get(&service, &format!("/attempts?limit=1&cursor={cursor}"));
    assert_ne!(first["items"][0]["key"], second["items"][0]["key"]);
    for wrong in ["outcome=lost", "code=x", "limit=0", "limit=1001", "since=soon", "cursor=%27", "key=%20"] {
        ask(&service, "GET", &format!("/attempts?{wrong}")).expect(400);
    }
    service.stop();
}

#[test]
fn jobs_are_run_once_at_a_time_and_schedules_paused() {
    let peer = deferring();
    let (relay, service) = with_deferred(&peer, 1);
    let jobs = get(&service, "/jobs");
    let names: Vec<_> = jobs["items"].as_array().expect("items").iter().map(|job| job["job"].clone()).collect();
    assert!(names.contains(&json!("spool")) && names.contains(&json!("retry-temporary")), "{jobs}");
    let done = task(&service, ask_with(&service, "POST", "/jobs/retry-temporary/run", "", "{\"now\": true}"));
    assert_eq!((&done["status"], &done["type"]), (&json!("completed"), &json!("job")));
    assert_eq!(done["additionalInformation"]["selected"], 1, "{done}");
    assert_eq!(relay.mails("temporary")[0]["passes"], 2);
    let runs = get(&service, "/runs?job=retry-temporary");
    assert_eq!(runs["items"][0]["trigger"], "http");
    ask(&service, "POST", "/jobs/nope/run").expect(404);
    ask_with(&service, "POST", "/jobs/spool/run", "", "{\"later\": true}").expect(400);
    assert_eq!(get(&service, "/jobs/retry-temporary")["lastRun"]["selected"], 1);
    service.stop();
}

#[test]
fn a_paused_schedule_does_not_tick_until_it_is_resumed() {
    let peer = deferring();
    let relay = served(Setup::gateway(peer.address()));
    super::write_schedule(&relay, "often", "job: retry-temporary\ncron: \"* * * * * *\"\n");
    let service = Service::start(&relay);
    let body = "{\"reason\": \"maintenance\", \"until\": \"2h\"}";
    ask_with(&service, "POST", "/schedules/often/pause", "", body).expect(204);
    let paused = get(&service, "/schedules")["items"][0]["paused"].clone();
    assert_eq!((&paused["reason"], &paused["by"]), (&json!("maintenance"), &json!("full")));
    let operation = get(&service, "/operations?limit=1")["items"][0].clone();
    let (until_when, detail) = (paused["until"].as_str().expect("a time"), operation["detail"].as_str().expect("why"));
    assert!(
        detail.starts_with(&format!("until {}", &until_when[..19])) && detail.ends_with(": maintenance"),
        "{detail}"
    );
    ask_with(&service, "POST", "/schedules/often/pause", "", "{\"until\": \"2020-01-01T00:00:00Z\"}").expect(400);
    ask_with(&service, "POST", "/schedules/often/pause", "", "[null, null]").expect(400);
    ask(&service, "POST", "/schedules/nope/pause").expect(404);
    std::thread::sleep(std::time::Duration::from_secs(3));
    let runs = || get(&service, "/runs?job=retry-temporary")["items"].as_array().map_or(0, Vec::len);
    let before = runs();
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(runs(), before, "its ticks pass");
    ask(&service, "POST", "/schedules/often/resume").expect(204);
    until("it ticks again", || runs() > before);
    service.stop();
}

#[test]
fn tasks_are_listed_awaited_and_cancelled() {
    let peer = deferring();
    let (_relay, service) = with_deferred(&peer, 1);
    let done = task(&service, ask(&service, "DELETE", "/mailRepositories/temporary/mails"));
    let id = done["taskId"].as_str().expect("an id");
    assert_eq!(get(&service, &format!("/tasks/{id}")), done);
    assert_eq!(get(&service, "/tasks?status=completed&type=clear-mail-repository")[0]["taskId"], id);
    assert_eq!(get(&service, "/tasks?status=failed"), json!([]));
    for (time, number) in [
        ("submittedAfter=2026-01-01T00:00:00Z", 1),
        ("submittedAfter=2026-01-01T00:00:00+01:00", 1),
        ("submittedAfter=2026-01-01T00:00:00%2B01:00", 1),
        ("submittedBefore=2026-01-01T00:00:00.5-01:00", 0),
    ] {
        assert_eq!(get(&service, &format!("/tasks?{time}")).as_array().map(Vec::len), Some(number), "{time}");
    }
    ask(&service, "DELETE", &format!("/tasks/{id}")).expect(204);
    let unknown = "00000000-0000-4000-8000-000000000000";
    ask(&service, "DELETE", &format!("/tasks/{unknown}")).expect(204);
    ask(&service, "GET", &format!("/tasks/{unknown}")).expect(404);
    ask(&service, "GET", &format!("/tasks/{unknown}/await")).expect(404);
    for (path, message) in [
        ("/tasks/nope".to_owned(), "Invalid task id"),
        (format!("/tasks/{id}/await?timeout=never"), "Invalid timeout"),
        ("/tasks?status=lost".to_owned(), "Invalid status query parameter"),
    ] {
        assert_eq!(ask(&service, "GET", &path).expect(400).json()["message"], message);
    }
    service.stop();
}

#[test]
fn a_message_is_taken_over_http_and_its_queue_is_shown_and_emptied() {
    let peer = deferring();
    let (relay, service) = with_deferred(&peer, 0);
    let message = "From: Me <me@example.org>\r\nTo: n1@later.example, n2@later.example\r\nSubject: s\r\n\r\nb\r\n";
    let header = "Content-Type: message/rfc822\r\n";
    ask_with(&service, "POST", "/mail-transfer-service", header, message).expect(201);
    service.wait_until_settled();
    let mail = &relay.mails("temporary")[0];
    assert_eq!(
        (&mail["sender"], &mail["recipients"]),
        (&json!("me@example.org"), &json!(["n1@later.example", "n2@later.example"]))
    );
    let key = mail["key"].as_str().expect("a key");
    let shown = get(&service, &format!("/mailRepositories/temporary/mails/{key}?additionalFields=headers"));
    assert_eq!(shown["remoteAddr"], "127.0.0.1");
    let received = shown["headers"]["Received"][0].as_str().expect("a field").to_owned();
    assert!(received.replace('\t', " ").starts_with("from [127.0.0.1] by relay.test with HTTP id "), "{received}");
    ask(&service, "PUT", "/mailRepositories/spool?protocol=sqlite").expect(400);
    for wrong in ["", "Subject: s\r\n\r\nb\r\n", "From: me@example.org\r\n\r\nnobody\r\n"] {
        ask_with(&service, "POST", "/mail-transfer-service", header, wrong).expect(400);
    }
    assert_eq!(get(&service, "/mailQueues/outgoing/mails?limit=5"), json!([]));
    ask(&service, "GET", "/mailQueues/nope/mails").expect(404);
    ask(&service, "DELETE", "/mailQueues/spool/mails?sender=a%40x.example&recipient=b%40x.example").expect(400);
    let cleared = task(&service, ask(&service, "DELETE", "/mailQueues/outgoing/mails?sender=me%40example.org"));
    assert_eq!((&cleared["type"], &cleared["status"]), (&json!("delete-mails-from-mail-queue"), &json!("completed")));
    assert_eq!(cleared["additionalInformation"]["queue"], "outgoing");
    ask_with(&service, "PATCH", "/mailQueues/spool/mails?delayed=true", "", "{\"delayed\": false}").expect(204);
    ask_with(&service, "PATCH", "/mailQueues/spool/mails?delayed=true", "", "{\"delayed\": true}").expect(400);
    service.stop();
}

#[test]
fn what_prometheus_scrapes_is_what_promtool_takes() {
    let peer = deferring();
    let (relay, service) = with_deferred(&peer, 2);
    let answer = ask(&service, "GET", "/metrics").expect(200);
    assert!(answer.head.contains("text/plain; version=0.0.4"), "{}", answer.head);
    let text = answer.text();
    for line in [
        "redeliver_mails{place=\"spool\"} 0",
        "redeliver_mails{place=\"var/mail/error/remote-delivery/temporary\"} 2",
        "redeliver_outcomes_total{outcome=\"deferred\",stage=\"rcpt\",class=\"4\"} 2",
        "redeliver_schedule_paused{schedule=\"retry-temporary\"} 0",
    ] {
        assert!(text.lines().any(|one| one == line) || line.contains("schedule"), "{line} is not in\n{text}");
    }
    assert!(text.contains("\nredeliver_wal_bytes "), "{text}");
    let printed = relay.command(&["metrics"]).expect(0).stdout;
    // The command itself may write: its log is as long as it is then, and so is the room on the disk.
    let moves = ["redeliver_wal_bytes ", "redeliver_store_free_bytes "];
    let fixed = printed.lines().filter(|line| !moves.iter().any(|name| line.starts_with(name)));
    let missing: Vec<_> = fixed.filter(|line| !text.lines().any(|one| one == *line)).collect();
    assert!(
        missing.is_empty() && printed.contains("redeliver_mails"),
        "the same on the command line: {missing:?}\n{text}"
    );
    service.stop();
}

#[test]
fn what_a_metrics_mailet_counts_is_scraped() {
    let peer = deferring();
    let relay = served(Setup::gateway(peer.address()));
    relay.reconfigure("  relay:\n", "  relay:\n    - { mailet: MetricsMailet, metricName: outgoing }\n");
    let service = Service::start(&relay);
    for number in 0..2 {
        service.submit(&[&format!("n{number}@later.example")], &format!("m{number}"));
    }
    service.wait_until_settled();
    let text = ask(&service, "GET", "/metrics").expect(200).text();
    assert!(text.contains("\nredeliver_metrics_mailet_total{metric=\"outgoing\"} 2\n"), "{text}");
    service.stop();
}

#[test]
fn the_alert_rules_ask_for_numbers_that_there_are() {
    let peer = deferring();
    let relay = served(Setup::gateway(peer.address()));
    super::write_schedule(&relay, "daily", "job: retry-temporary\ncron: \"0 0 1 1 *\"\n");
    let service = Service::start(&relay);
    service.submit(&["n1@later.example"], "m");
    service.wait_until_settled();
    task(&service, ask_with(&service, "POST", "/jobs/retry-temporary/run", "", "{\"now\": true}"));
    let text = ask(&service, "GET", "/metrics").expect(200).text();
    service.stop();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/prometheus/redeliver.rules.yml");
    let rules = std::fs::read_to_string(file).expect("it ships");
    let asked = rules.lines().filter(|line| !line.trim_start().starts_with('#') && !line.contains("description:"));
    let names = asked.flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    let names: Vec<_> = names.filter(|name| name.starts_with("redeliver_")).collect();
    assert!(names.len() > 6, "{names:?}");
    for name in names {
        assert!(text.contains(&format!("# TYPE {name} ")), "{name} is not in\n{text}");
    }
}

#[test]
fn a_password_guards_all_but_the_health_checks() {
    let relay = Setup::gateway("127.0.0.2:25")
        .top("smtp: { listen: [\"127.0.0.1:0\"] }\nadmin: { listen: \"127.0.0.1:0\", password: [\"secret\"], passwordReadonly: [\"look\"] }")
        .build();
    let service = Service::start(&relay);
    ask(&service, "GET", "/healthcheck").expect(200);
    for path in ["/", "/metrics", "/openapi.json", "/mailRepositories", "/tasks"] {
        assert_eq!(ask(&service, "GET", path).status, 401, "{path}");
        let status = if path == "/" { 303 } else { 200 };
        ask_with(&service, "GET", path, "Password: secret\r\n", "").expect(status);
    }
    ask_with(&service, "DELETE", "/mailRepositories/temporary/mails", "Password: look\r\n", "").expect(403);
    ask_with(&service, "DELETE", "/mailRepositories/temporary/mails?dryRun=true", "Password: look\r\n", "").expect(200);
    let allow = ask_with(&service, "POST", "/metrics", "Password: secret\r\n", "").expect(405);
    assert!(allow.head.to_ascii_lowercase().contains("allow: get"), "{}", allow.head);
    let unlisted = ask_with(&service, "GET", "/etc/passwd", "Password: secret\r\n", "").expect(404);
    assert!(unlisted.head.contains("nosniff") && unlisted.head.contains("no-store"), "{}", unlisted.head);
    service.stop();
}

#[test]
fn a_task_that_a_kill_cut_off_has_failed_and_each_mail_is_whole() {
    let peer = deferring();
    let relay = served(Setup::gateway(peer.address()));
    relay.fill((0..3000).map(|number| vec![format!("n{number}@later.example")]));
    let service = Service::start(&relay);
    service.wait_until_settled();
    let id = ask(&service, "PATCH", "/mailRepositories/temporary/mails?action=reprocess&processor=relay")
        .expect(201)
        .json()["taskId"]
        .as_str()
        .expect("an id")
        .to_owned();
    let begun = || get(&service, "/operations")["items"][0]["mails"].as_u64().is_some_and(|mails| mails > 0);
    until("something is done", begun);
    service.kill();
    let service = Service::start(&relay);
    let status = get(&service, &format!("/tasks/{id}"));
    // The task says what was done, though it could not tell that any more.
    let operation = get(&service, "/operations")["items"][0].clone();
    assert_eq!((&status["operation"], &status["done"]), (&operation["id"], &operation["mails"]), "{status}");
    assert!(["failed", "completed"].contains(&status["status"].as_str().expect("a word")), "{status}");
    service.wait_until_settled();
    // The kill cost those in an attempt a pass, and the third is their last.
    assert_eq!(relay.size("temporary") + relay.size("permanent"), 3000, "each is in one place");
    service.stop();
}
