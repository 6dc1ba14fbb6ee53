//! Pages of causes, attempts, jobs, next hops, operations and tasks, as a browser without a
//! script gets them; `tests/page/run` looks at them in a real one.

use serde_json::{Value, json};

use super::page::location;
use super::webadmin::{Answer, ask, ask_with, get};
use super::{Service, served, until, write_schedule};
use crate::support::message;
use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Script, SmtpSink, reply, script};
use crate::told::shipped;

/// Words of a peer that would harm whoever looks at them, were they not text.
const HOSTILE: &str = "550-5.1.1 <script>alert(x)</script><img src=x onerror=alert(x)>\r\n\
                       550 5.1.1 \u{202e}\u{1b}[31m\"'><a href=//evil.example>{{7*7}}";

/// A service with two mails that failed with hostile words, and one that was deferred.
fn harmed() -> (SmtpSink, Relay, Service) {
    let peer = SmtpSink::start(script![
        "RCPT TO:<later" => "451 4.2.0 later",
        "RCPT TO:" => reply(HOSTILE),
    ]);
    let relay = served(Setup::gateway(peer.address()));
    write_schedule(&relay, "nightly", "job: retry-temporary\ncron: \"0 3 * * *\"\n");
    let service = Service::start(&relay);
    service.submit(&["\"<b>bold</b>\"@x.example"], "m1");
    service.submit(&["b@x.example"], "m2");
    service.submit(&["later@x.example"], "m3");
    service.wait_until_settled();
    (peer, relay, service)
}

fn page(service: &Service, path: &str) -> String {
    let answer = ask(service, "GET", path).expect(200);
    for header in [
        "content-security-policy: default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
         connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        "referrer-policy: same-origin",
        "cross-origin-opener-policy: same-origin",
        "x-content-type-options: nosniff",
        "cache-control: no-store",
    ] {
        assert_eq!(answer.head.to_ascii_lowercase().matches(header).count(), 1, "{path}: {header}\n{}", answer.head);
    }
    let html = answer.text();
    assert!(html.len() < 50_000, "{path} has {} octets", html.len());
    assert_eq!(html.matches("<h1>").count(), 1, "{path}");
    html
}

/// Sends a form of ours with the token that its page has.
fn send(service: &Service, path: &str, fields: &str) -> Answer {
    let token = token(&page(service, path), path);
    let origin = format!("Origin: http://{}\r\nSec-Fetch-Site: same-origin\r\n", service.admin);
    ask_with(service, "POST", path, &origin, &format!("token={token}&{fields}"))
}

fn token(html: &str, action: &str) -> String {
    let form = html.split(&format!("action=\"{action}\"")).nth(1).unwrap_or_else(|| panic!("{action}: {html}"));
    let value = form.split("name=\"token\" value=\"").nth(1).expect("a token");
    value.split('"').next().expect("its end").to_owned()
}

/// What was asked for has come to its end.
fn ended(service: &Service, task: &str) -> Value {
    let id = task.rsplit('/').next().expect("an id");
    get(service, &format!("/tasks/{id}/await?timeout=20"))
}

#[test]
fn what_others_say_is_text_on_every_page() {
    let (_peer, _relay, service) = harmed();
    let group = get(&service, "/groups?repository=permanent")["items"][0].clone();
    assert_eq!(group["count"], 2);
    let group = format!("/ui/groups/{}", group["id"].as_str().expect("an id"));
    let hostile = "%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E";
    for path in [
        "/ui/groups",
        "/ui/groups?repository=permanent",
        &group,
        &format!("{group}?repository=temporary"),
        "/ui/attempts",
        "/ui/attempts?outcome=failed&since=1h&code=550",
        &format!("/ui/attempts?recipient={hostile}&sender={hostile}&nextHop={hostile}"),
        "/ui/jobs",
        "/ui/jobs/retry-temporary",
        "/ui/jobs/retry-temporary/run",
        &format!("/ui/jobs/retry-temporary?paused={hostile}&resumed={hostile}"),
        "/ui/schedules/nightly/pause",
        "/ui/schedules/nightly/resume",
        "/ui/peers",
        "/ui/explain",
        "/ui/explain?recipient=%22%3Cb%3E%22%40x.example",
        &format!("/ui/explain?recipient={hostile}"),
        "/ui/operations",
        "/ui/tasks",
    ] {
        let html = page(&service, path);
        for harm in ["<script>", "<img", "<b>", "<a href=//", "\u{202e}", "\u{1b}", "style="] {
            assert!(!html.contains(harm), "{path} has {harm}:\n{html}");
        }
    }
    for (path, told) in [
        ("/ui/groups", "&lt;script&gt;alert(x)"),
        (group.as_str(), "550-5.1.1 &lt;script&gt;alert(x)&lt;/script&gt;"),
        (group.as_str(), "\\u{202e}\\u{1b}[31m"),
        ("/ui/attempts", "&lt;b&gt;bold&lt;/b&gt;"),
        ("/ui/peers", ">2</a>"),
    ] {
        let html = page(&service, path);
        assert!(html.replace("&#60;", "&lt;").replace("&#62;", "&gt;").contains(told), "{path} has no {told}:\n{html}");
    }
}

#[test]
fn what_is_not_there_is_a_page_that_says_so() {
    let relay = served(Setup::gateway("127.0.0.1:9"));
    let service = Service::start(&relay);
    for (path, status, told) in [
        ("/ui/groups/0123456789ab", 404, "no failure group"),
        ("/ui/groups/%3Cscript%3E", 404, "no failure group"),
        ("/ui/groups?repository=nothing", 404, "does not exist"),
        ("/ui/groups?cursor=%3Cscript%3E", 400, "cursor"),
        ("/ui/attempts?code=five", 400, "no reply code"),
        ("/ui/attempts?since=soon", 400, "neither an age"),
        ("/ui/jobs/%3Cscript%3E", 404, "no job"),
        ("/ui/jobs/nothing/run", 404, "no job"),
        ("/ui/schedules/nothing/pause", 404, "no schedule"),
        ("/ui/operations/1", 404, "no operation"),
        ("/ui/operations/%3Cscript%3E", 404, "no operation"),
        ("/ui/tasks/1", 404, "no task"),
        ("/ui/tasks/00000000-0000-0000-0000-000000000000/cancel", 404, "no task"),
    ] {
        let answer = ask(&service, "GET", path).expect(status);
        let html = answer.text();
        assert!(html.contains("<h1>") && html.contains(told) && !html.contains("<script>"), "{path}: {html}");
    }
    for (path, named, status) in [
        ("/ui/attempts?code=five&recipient=a%40b.example", "f-code", 400),
        ("/ui/attempts?since=soon", "f-since", 400),
        ("/ui/attempts?key=%C3%A9", "f-key", 400),
        ("/ui/repositories/permanent?recipient=nobody&domain=b.example", "f-recipient", 400),
        ("/ui/repositories/permanent?olderThan=soon", "f-olderThan", 400),
        ("/ui/repositories/permanent?group=0123456789ab", "f-group", 400),
        ("/ui/spool?passes=many", "f-passes", 400),
    ] {
        // The form stands as it was filled in, with what is wrong beside the one field.
        let html = ask(&service, "GET", path).expect(status).text();
        assert!(html.contains("<form class=\"filter\"") && html.contains("Nothing was looked for"), "{path}: {html}");
        let fields: Vec<_> = html.split("<input ").filter(|field| field.contains("aria-invalid")).collect();
        assert!(fields.len() == 1 && fields[0].contains(&format!("id=\"{named}\"")), "{path}: {fields:?}");
        assert!(fields[0].contains("class=\"wrong\""), "{path}: {fields:?}");
        assert!(html.contains("b.example") == path.contains("b.example"), "{path}: {html}");
    }
    for (path, told) in [
        ("/ui/groups", "That is how it should be"),
        ("/ui/attempts", "No attempt is on record"),
        ("/ui/peers", "Nobody was sent to"),
        ("/ui/operations", "Nobody has changed anything"),
        ("/ui/tasks", "Nothing goes on"),
    ] {
        assert!(page(&service, path).contains(told), "{path}");
    }
    let filtered = ask(&service, "GET", "/ui/attempts?recipient=&outcome=failed&code=").expect(303);
    assert_eq!(location(&filtered), "/ui/attempts?outcome=failed");
}

#[test]
fn a_schedule_is_paused_and_resumed_and_its_job_run_from_pages() {
    let (_peer, _relay, service) = harmed();
    let paused = || get(&service, "/schedules")["items"][0]["paused"].clone();
    let done = send(&service, "/ui/schedules/nightly/pause", "reason=the+peer+%3Cb%3Emoves&until=2h").expect(303);
    assert_eq!(location(&done), "/ui/jobs/retry-temporary?paused=nightly");
    assert_eq!((&paused()["reason"], &paused()["by"]), (&json!("the peer <b>moves"), &json!("full")));
    let html = page(&service, &location(&done));
    assert!(html.contains("Schedule nightly is paused") && html.contains("moves") && !html.contains("<b>"), "{html}");
    let past = send(&service, "/ui/schedules/nightly/pause", "until=2000-01-01T00:00:00Z").expect(400);
    assert!(past.text().contains("must lie in the future"), "{}", past.text());
    let long = format!("{{\"reason\": \"{}\"}}", "x".repeat(10_001));
    let long =
        ask_with(&service, "POST", "/schedules/nightly/pause", "Content-Type: application/json\r\n", &long).expect(400);
    assert!(long.text().contains("10001 octets"), "{}", long.text());
    let done = send(&service, "/ui/schedules/nightly/resume", "").expect(303);
    assert_eq!((paused(), location(&done)), (Value::Null, "/ui/jobs/retry-temporary?resumed=nightly".to_owned()));
    // A notice is not believed where it is not so.
    assert!(!page(&service, "/ui/jobs/retry-temporary?paused=nightly").contains("is paused"));

    let started = send(&service, "/ui/jobs/retry-temporary/run", "now=true").expect(303);
    let task = location(&started);
    page(&service, &task);
    assert_eq!(ended(&service, &task)["status"], "completed");
    let html = page(&service, &task);
    assert!(html.contains("completed") && !html.contains("http-equiv=\"refresh\""), "{html}");
    let html = page(&service, "/ui/jobs/retry-temporary");
    assert!(html.contains("1 deferred") && html.contains("/ui/attempts?since="), "{html}");
    assert!(page(&service, "/ui/operations").contains("the peer &#60;b&#62;moves"));
    send(&service, &format!("{task}/cancel"), "").expect(303);
}

#[test]
fn a_form_of_others_changes_nothing() {
    let (_peer, _relay, service) = harmed();
    let form = "/ui/schedules/nightly/pause";
    let own = token(&page(&service, form), form);
    let other = token(&page(&service, "/ui/jobs/retry-temporary/run"), "/ui/jobs/retry-temporary/run");
    let here = format!("Origin: http://{}\r\n", service.admin);
    for (header, fields) in [
        (String::new(), format!("token={own}")),
        ("Origin: http://evil.example\r\n".to_owned(), format!("token={own}")),
        ("Origin: null\r\n".to_owned(), format!("token={own}")),
        (format!("{here}Sec-Fetch-Site: cross-site\r\n"), format!("token={own}")),
        (here.clone(), String::new()),
        (here.clone(), format!("token={other}")),
    ] {
        ask_with(&service, "POST", form, &header, &fields).expect(403);
    }
    let unknown = ask_with(&service, "POST", form, &here, &format!("token={own}&raeson=x")).expect(400);
    assert!(unknown.text().contains("raeson"), "{}", unknown.text());
    assert_eq!(get(&service, "/schedules")["items"][0]["paused"], Value::Null);
    ask(&service, "POST", form).expect(403);
    assert_eq!(get(&service, "/tasks"), json!([]));
}

#[test]
fn what_a_role_may_not_do_is_not_offered_and_refused() {
    let peer = SmtpSink::start(script!["RCPT" => "550 5.1.1 no"]);
    let relay = Setup::gateway(peer.address())
        .top("smtp: { listen: [\"127.0.0.1:0\"] }")
        .top(
            "admin: { listen: \"127.0.0.1:0\", password: [\"full\"], passwordReadonly: [\"look\"], \
             passwordNodelete: [\"keep\"] }",
        )
        .build();
    let purge = "kind: purge\nrepository: permanent\nolderThan: 1d\nforce: true\n";
    std::fs::write(relay.path().join("jobs/purge.yaml"), purge).expect("written");
    write_schedule(&relay, "nightly", "job: retry-temporary\ncron: \"0 3 * * *\"\n");
    let service = Service::start(&relay);
    service.submit(&["b@x.example"], "m1");
    until("it failed", || relay.size("permanent") == 1);
    let origin = format!("Origin: http://{}\r\n", service.admin);
    for (password, offered) in [("look", [0, 0, 0, 0]), ("keep", [1, 1, 1, 0]), ("full", [1, 1, 1, 1])] {
        let login = ask_with(&service, "POST", "/ui/login", &origin, &format!("password={password}")).expect(303);
        let cookie = login.head.split("redeliver=").nth(1).and_then(|rest| rest.split(';').next()).expect("a cookie");
        let cookie = format!("Cookie: redeliver={cookie}\r\n");
        let group = ask_with(&service, "GET", "/ui/groups", &cookie, "").expect(200).text();
        let group =
            group.split("/ui/groups/").nth(1).and_then(|rest| rest.split('"').next()).expect("a group").to_owned();
        for (path, marks, number) in [
            (format!("/ui/groups/{group}"), ">Reprocess&hellip;</a>", offered[0]),
            ("/ui/jobs/retry-temporary".to_owned(), "/ui/jobs/retry-temporary/run\"", offered[1]),
            ("/ui/jobs/retry-temporary".to_owned(), "/ui/schedules/nightly/pause\"", offered[2]),
            ("/ui/jobs/purge".to_owned(), "/ui/jobs/purge/run\"", offered[3]),
        ] {
            let html = ask_with(&service, "GET", &path, &cookie, "").expect(200).text();
            assert_eq!(html.matches(marks).count(), number, "{password}: {path} {marks}\n{html}");
        }
        let ask_first = ask_with(&service, "GET", "/ui/jobs/purge/run", &cookie, "").expect(200).text();
        let form = format!("token={}", token(&ask_first, "/ui/jobs/purge/run"));
        let header = format!("{cookie}{origin}");
        let status = if password == "full" { 303 } else { 403 };
        ask_with(&service, "POST", "/ui/jobs/purge/run", &header, &form).expect(status);
        assert_eq!(ask_with(&service, "GET", "/tasks", &cookie, "").status, 401, "the cookie is for pages alone");
    }
}

#[test]
fn an_operation_names_its_mails() {
    let (_peer, relay, service) = harmed();
    let keys: Vec<_> =
        relay.mails("permanent").iter().map(|mail| mail["key"].as_str().expect("a key").to_owned()).collect();
    relay
        .command(&["repository", "acknowledge", "permanent", "--all", "--note", "<b>known</b>\nsince monday"])
        .expect(0);
    let html = page(&service, "/ui/operations");
    assert!(html.contains("href=\"/ui/operations/1\"") && html.contains("acknowledge"), "{html}");
    let html = page(&service, "/ui/operations/1");
    for key in &keys {
        assert!(html.contains(&format!("href=\"/ui/mails/{key}\"")), "{html}");
    }
    assert!(html.contains("&#60;b&#62;known") && !html.contains("<b>"), "{html}");
    assert_eq!(html.matches("class=\"key\"").count(), keys.len(), "{html}");
}

#[test]
fn what_the_sender_was_told_is_a_row_each_with_the_notification() {
    let peer = SmtpSink::start(script!["RCPT TO:<no" => "550 5.1.1 nobody of that name"]);
    let listens = [("[\"127.0.0.1:2525\"]", "[\"127.0.0.1:0\"]"), ("\"127.0.0.1:8000\"", "\"127.0.0.1:0\"")];
    let relay = shipped(peer.address(), &listens);
    relay.submit("me@sender.example", &["no1@x.example", "yes@x.example", "no2@x.example"], &message("m"));
    relay.command_with_input(
        &["sendmail", "-N", "never", "-f", "quiet@y.example", "no3@x.example"],
        b"Subject: x\n\nx\n",
    );
    let service = Service::start(&relay);
    service.wait_until_settled();
    let of = |sender: &str| {
        let mail = relay.mails("permanent").into_iter().find(|mail| mail["sender"] == sender).expect("kept");
        page(&service, &format!("/ui/mails/{}", mail["key"].as_str().expect("a key")))
    };
    let html = of("me@sender.example");
    let (_, table) = html.split_once("<h2>What the sender was told</h2>").unwrap_or_else(|| panic!("{html}"));
    let (table, _) = table.split_once("</table>").expect("its end");
    let rows: Vec<_> = table.split("<tr>").skip(2).collect();
    assert_eq!(rows.len(), 2, "not of who was reached: {table}");
    for (row, recipient) in rows.iter().zip(["no1@x.example", "no2@x.example"]) {
        let told = ["failed", "<time datetime=", "me@sender.example", recipient];
        assert!(told.iter().all(|told| row.contains(told)), "{row}");
        let (_, dsn) = row.split_once("href=\"").expect("the notification");
        let dsn = page(&service, dsn.split('"').next().expect("its end"));
        assert!(dsn.contains("me@sender.example"), "{dsn}");
    }
    assert!(!of("quiet@y.example").contains("What the sender was told"), "he wanted to be told nothing");
    service.stop();
}

#[test]
fn a_mail_for_many_has_a_page_of_usual_length_and_undelivered_reports_want_attention() {
    let peer = SmtpSink::start(script![
        "RCPT TO:" => reply("550-5.1.1 nobody of that name\r\n550-5.1.1 is known here\r\n550 5.1.1 see https://x.example/nobody"),
    ]);
    let listens = [("[\"127.0.0.1:2525\"]", "[\"127.0.0.1:0\"]"), ("\"127.0.0.1:8000\"", "\"127.0.0.1:0\"")];
    let relay = shipped(peer.address(), &listens);
    let many: Vec<_> = (0..120).map(|n| format!("{}.number.{n}@hostile.example", "recipient".repeat(5))).collect();
    relay.submit("me@sender.example", &many.iter().map(String::as_str).collect::<Vec<_>>(), &message("m"));
    let service = Service::start(&relay);
    service.wait_until_settled();
    let mails = relay.mails("permanent");
    let path = format!("/ui/mails/{}", mails[0]["key"].as_str().expect("a key"));
    let html = page(&service, &path);
    assert!(html.len() < 50_000, "{} octets", html.len());
    let whole = ask(&service, "GET", &format!("{path}?whole=true")).expect(200).text();
    assert!(html.contains("?whole=true") && whole.contains(&many[119]));
    let overview = page(&service, "/ui/");
    for told in [
        "Senders not told",
        "reports to senders could not be delivered",
        "Reports to senders that cannot be delivered",
        "Mail that failed for good",
    ] {
        assert!(overview.contains(told), "{told}: {overview}");
    }
    for path in ["/ui/tasks/1", "/ui/jobs/nothing", "/ui/operations/7"] {
        assert!(!ask(&service, "GET", path).expect(404).text().contains("attempts of mails"), "{path}");
    }
    assert!(ask(&service, "GET", "/ui/mails/NOTHING").expect(404).text().contains("attempts of mails"));
    service.stop();
}

#[test]
fn a_mail_says_when_it_is_due_and_who_takes_it_then() {
    let peer = SmtpSink::start(script!["RCPT TO:" => "451 4.2.0 later"]);
    let relay = served(Setup::gateway(peer.address()).job("spacing: [1h]"));
    // What counts its passes has another name: when it is due goes by attempts all the same.
    relay.reconfigure("AtMost=", "AtMost=mx:");
    relay.reconfigure("AttemptsExhausted=", "AttemptsExhausted=mx:");
    write_schedule(&relay, "nightly", "job: retry-temporary\ncron: \"0 3 * * *\"\n");
    let service = Service::start(&relay);
    service.submit(&["later@x.example"], "m1");
    service.wait_until_settled();
    let path = format!("/ui/mails/{}", relay.mails("temporary")[0]["key"].as_str().expect("a key"));
    let pause = |body: &str| ask_with(&service, "POST", "/schedules/nightly/pause", "", body).expect(204);
    let html = page(&service, &path);
    assert!(html.contains("It is due again at") && html.contains("takes it at its next run"), "{html}");
    pause("{}");
    let html = page(&service, &path);
    assert!(html.contains("when somebody runs it: schedule nightly is paused"), "{html}");
    pause("{\"until\": \"9000d\"}");
    let html = page(&service, &path);
    let next = html.split("at its next run, ").nth(1).and_then(|rest| rest.get(..4)).and_then(|year| year.parse().ok());
    assert!(next.is_some_and(|year: u32| year > 2040), "behind the pause: {html}");
    service.stop();
}

#[test]
fn a_mail_that_was_split_off_has_its_record_also_when_it_is_gone() {
    let peer = SmtpSink::start(script!["RCPT TO:<later" => "451 4.2.0 later", "RCPT TO:<no" => "550 5.1.1 unknown"]);
    let relay = served(Setup::gateway(peer.address()));
    let service = Service::start(&relay);
    service.submit(&["no@x.example", "later@x.example", "yes@x.example"], "m");
    service.wait_until_settled();
    let key_in = |place: &str| {
        let mails = get(&service, &format!("/mailRepositories/{place}/mails"));
        mails[0].as_str().expect("a key").to_owned()
    };
    let (failed, deferred) = (key_in("permanent"), key_in("temporary"));
    let held = || {
        let found = get(&service, &format!("/attempts?key={failed}"));
        let to: Vec<_> = found["items"][0]["recipients"].as_array().expect("recipients").iter().collect();
        assert_eq!((to.len(), &to[0]["recipient"]), (1, &json!("no@x.example")), "{found}");
        assert_eq!(found["items"].as_array().map(Vec::len), Some(1), "{found}");
        let html = page(&service, &format!("/ui/mails/{failed}"));
        for part in ["no@x.example", "550", "unknown", &format!("<a href=\"/ui/mails/{deferred}\">")] {
            assert!(html.contains(part), "{part}: {html}");
        }
        assert!(!html.contains("later@x.example"), "{html}");
        assert!(page(&service, &format!("/ui/mails/{failed}/attempts/1")).contains("550 5.1.1 unknown"));
        let other = page(&service, &format!("/ui/mails/{deferred}"));
        assert!(other.contains(&format!("<a href=\"/ui/mails/{failed}\">")), "{other}");
        let record = relay.command(&["attempts", "--key", &failed, "--format", "json"]).expect(0).json();
        assert_eq!((record.len(), &record[0]["key"]), (1, &json!(deferred)));
    };
    held();
    ask(&service, "DELETE", &format!("/mailRepositories/permanent/mails/{failed}")).expect(204);
    held();
    ask(&service, "DELETE", &format!("/mailRepositories/temporary/mails/{deferred}")).expect(204);
    held();
    let gone = relay.command(&["repository", "show", "permanent", &failed]).expect(66);
    assert!(
        gone.stderr.contains("removed by operation 1") && gone.stderr.contains(&format!("--key {failed}")),
        "{gone:?}"
    );
    relay.command(&["attempts", "--key", "no key"]).expect(66);
}
