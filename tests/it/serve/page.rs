//! The pages for a person, over a real service: looking, and acting on what was shown.

use serde_json::Value;

use super::webadmin::{Answer, ask, ask_with};
use super::{Service, served, until};
use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Script, SmtpSink, on, raw, script};

const PERMANENT: &str = "var/mail/error/remote-delivery/permanent";

/// Refuses everybody for good, with words that a page must not take for its own.
fn refusing() -> SmtpSink {
    let reply = "550 5.1.1 <script>alert(1)</script> & \"no\"\u{202e}such \u{1b}[31muser";
    SmtpSink::start(script![on("RCPT") => reply])
}

fn page(service: &Service, path: &str) -> String {
    let answer = ask(service, "GET", path);
    assert!(answer.body.len() < 50_000, "{path} has {} octets", answer.body.len());
    answer.expect(200).text()
}

/// Sends a form, as a browser does that shows a page of ours.
fn send(service: &Service, path: &str, form: &[(String, String)]) -> Answer {
    let mut body = form_urlencoded::Serializer::new(String::new());
    body.extend_pairs(form);
    let header = format!(
        "Origin: http://{}\r\nSec-Fetch-Site: same-origin\r\nContent-Type: application/x-www-form-urlencoded\r\n",
        service.admin
    );
    ask_with(service, "POST", path, &header, &body.finish())
}

/// The hidden fields of the form that is sent to `action`.
fn hidden(page: &str, action: &str) -> Vec<(String, String)> {
    let form = page.split(&format!("action=\"{action}\"")).nth(1).unwrap_or_else(|| panic!("{action}: {page}"));
    let form = form.split("</form>").next().expect("its end");
    let field = |piece: &str| {
        let (name, rest) = piece.split_once('"')?;
        let value = rest.strip_prefix(" value=\"")?.split('"').next()?;
        Some((name.to_owned(), value.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")))
    };
    form.split("type=\"hidden\" name=\"").skip(1).filter_map(field).collect()
}

fn with(mut form: Vec<(String, String)>, name: &str, value: &str) -> Vec<(String, String)> {
    form.push((name.to_owned(), value.to_owned()));
    form
}

pub(super) fn location(answer: &Answer) -> String {
    let line = answer
        .head
        .lines()
        .find_map(|line| line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("location")));
    line.unwrap_or_else(|| panic!("{}", answer.head)).1.to_owned()
}

fn keys(service: &Service, repository: &str, filter: &str) -> Vec<String> {
    let path = format!("/mailRepositories/{}/mails?{filter}", repository.replace('/', "%2F"));
    let keys = ask(service, "GET", &path).expect(200).json();
    keys.as_array().expect("keys").iter().map(|key| key.as_str().expect("text").to_owned()).collect()
}

fn task(service: &Service, path: &str) -> Value {
    let id = path.strip_prefix("/ui/tasks/").unwrap_or_else(|| panic!("{path}"));
    ask(service, "GET", &format!("/tasks/{id}/await?timeout=20s")).expect(200).json()
}

fn failed(number: usize, domain: &str, peer: &SmtpSink) -> (Relay, Service) {
    let relay = served(Setup::gateway(peer.address()));
    relay.fill((0..number).map(|number| vec![format!("u{number}@{domain}")]));
    let service = Service::start(&relay);
    service.wait_until_settled();
    (relay, service)
}

#[test]
fn from_the_overview_to_the_words_of_the_remote_host_are_two_clicks() {
    let peer = refusing();
    let (_relay, service) = failed(3, "gone.example", &peer);
    let overview = page(&service, "/ui/");
    let list = overview.split("href=\"").find(|link| link.starts_with("/ui/repositories/") && link.contains("group="));
    let list =
        list.and_then(|link| link.split('"').next()).expect("a link to the mails of a cause").replace("&amp;", "&");
    let mails = page(&service, &list);
    let key = &keys(&service, PERMANENT, "")[0];
    assert!(mails.contains(&format!("<a href=\"/ui/mails/{key}\">{key}</a>")), "{mails}");
    let mail = page(&service, &format!("/ui/mails/{key}"));
    for page in [&overview, &mails, &mail, &page(&service, &format!("/ui/mails/{key}/attempts/1"))] {
        assert!(page.contains("script&gt;") || page.contains("script&#62;"), "{page}");
        assert!(!page.contains("<script>"), "{page}");
        assert!(!page.contains('\u{202e}') && !page.contains('\u{1b}'), "nothing steers: {page}");
        assert_eq!(page.matches("<h1>").count(), 1);
        assert!(!page.contains(" style=\"") && !page.contains("<style") && !page.contains("onclick"), "{page}");
    }
    assert!(mail.contains("550 5.1.1"), "{mail}");
    service.stop();
}

#[test]
fn what_is_done_to_many_is_done_to_what_was_shown_though_mail_keeps_coming() {
    let peer = refusing();
    let (relay, service) = failed(5, "gone.example", &peer);
    let shown = keys(&service, PERMANENT, "");
    let asked = page(&service, &format!("/ui/act/acknowledge?repository={PERMANENT}&domain=gone.example&newerThan=1h"));
    assert!(asked.contains("<h1>Acknowledge 5 mails</h1>"), "{asked}");
    let form = hidden(&asked, "/ui/act/acknowledge");
    let age = form.iter().find(|(name, _)| name == "newerThan").expect("the condition");
    assert!(age.1.ends_with('Z'), "an age is a time from here on: {age:?}");

    relay.fill((10..14).map(|number| vec![format!("u{number}@gone.example")]));
    until("the others have failed too", || keys(&service, PERMANENT, "").len() == 9);
    let answer = send(&service, "/ui/act/acknowledge", &with(form, "note", "known <b>since</b> today")).expect(303);
    let task = task(&service, &location(&answer));
    assert_eq!(
        (task["status"].as_str(), task["additionalInformation"]["mails"].as_u64()),
        (Some("completed"), Some(5))
    );
    let left = keys(&service, PERMANENT, "unacknowledged=true");
    assert_eq!(left.len(), 4);
    assert!(left.iter().all(|key| !shown.contains(key)));
    let mail = page(&service, &format!("/ui/mails/{}", shown[0]));
    assert!(mail.contains("known &#60;b&#62;since") || mail.contains("known &lt;b&gt;since"), "{mail}");
    service.stop();
}

#[test]
fn one_mail_is_moved_and_removed_and_its_page_says_so_though_it_is_gone() {
    let peer = refusing();
    let (_relay, service) = failed(1, "gone.example", &peer);
    let key = keys(&service, PERMANENT, "").remove(0);
    let form = |verb: &str, repository: &str| {
        let asked = page(&service, &format!("/ui/act/{verb}?repository={repository}&key={key}"));
        hidden(&asked, &format!("/ui/act/{verb}"))
    };
    let moved = with(form("move", "permanent"), "to", "var/mail/error");
    let answer = send(&service, "/ui/act/move", &moved).expect(303);
    let told = page(&service, &location(&answer));
    assert!(
        told.contains("role=\"status\">Done: moved to var/mail/error by operation 1, full from 127.0.0.1"),
        "{told}"
    );
    assert!(page(&service, "/ui/").contains("EmptyErrorMailRepository"), "it needs attention there");
    let answer = send(&service, "/ui/act/move", &moved).expect(404);
    assert!(answer.text().contains("<h1>Not found</h1>"), "it is not there any more: {}", answer.text());

    let removed = send(&service, "/ui/act/remove", &form("remove", "var/mail/error")).expect(303);
    let told = page(&service, &location(&removed));
    assert!(told.contains("Done: removed by operation 2") && told.contains("gone:"), "{told}");
    assert!(told.contains("550 5.1.1"), "what was said stays on record: {told}");
    assert!(!told.contains("/ui/act/"), "nothing can be done to it: {told}");
    ask(&service, "GET", &format!("/ui/mails/{key}/message")).expect(404);
    ask(&service, "GET", "/ui/mails/NOTHING").expect(404);
    service.stop();
}

#[test]
fn reprocessing_takes_the_processor_and_the_counters_as_chosen() {
    let peer = refusing();
    let (_relay, service) = failed(2, "gone.example", &peer);
    let asked = page(&service, "/ui/act/reprocess?repository=permanent");
    let form = hidden(&asked, "/ui/act/reprocess");
    let refused = send(&service, "/ui/act/reprocess", &with(form.clone(), "processor", "nope")).expect(400);
    assert!(refused.text().contains("nope"), "{}", refused.text());
    let form = with(with(form, "processor", "relay"), "resetCounters", "true");
    let task = task(&service, &location(&send(&service, "/ui/act/reprocess", &form).expect(303)));
    assert_eq!(task["status"], "completed", "{task}");
    until("both were tried again", || {
        peer.commands().iter().filter(|command| command.starts_with("RCPT TO")).count() == 4
    });
    service.wait_until_settled();
    let key = &keys(&service, PERMANENT, "")[0];
    let mail = page(&service, &format!("/ui/mails/{key}"));
    assert!(mail.contains("Attempt 2") && mail.contains("reprocessed through relay by operation 1"), "{mail}");
    service.stop();
}

#[test]
fn a_form_that_was_changed_or_is_another_pages_does_nothing() {
    let peer = refusing();
    let (_relay, service) = failed(1, "gone.example", &peer);
    let asked = page(&service, "/ui/act/acknowledge?repository=permanent");
    let form = hidden(&asked, "/ui/act/acknowledge");
    send(&service, "/ui/act/remove", &form).expect(403);
    let without = |name: &str| form.iter().filter(|(known, _)| known != name).cloned().collect::<Vec<_>>();
    send(&service, "/ui/act/acknowledge", &without("token")).expect(403);
    send(&service, "/ui/act/acknowledge", &without("until")).expect(400);
    send(&service, "/ui/act/acknowledge", &without("repository")).expect(400);
    send(&service, "/ui/act/acknowledge", &with(form.clone(), "sneder", "a@b.example")).expect(400);
    send(&service, "/ui/act/acknowledge", &with(form.clone(), "code", "abc")).expect(400);
    send(&service, "/ui/act/nothing", &form).expect(403);
    for get in ["/ui/act/nothing?repository=permanent", "/ui/act/remove?repository=nowhere"] {
        ask(&service, "GET", get).expect(404);
    }
    for get in ["/ui/act/remove", "/ui/act/remove?repository=permanent&sneder=x", "/ui/act/reprocess?place=spool"] {
        ask(&service, "GET", get).expect(400);
    }
    assert_eq!(keys(&service, PERMANENT, "unacknowledged=true").len(), 1, "nothing was done");
    service.stop();
}

#[test]
fn a_repository_is_found_by_each_of_its_names_and_its_filter_is_in_the_address() {
    let peer = refusing();
    let (_relay, service) = failed(45, "gone.example", &peer);
    for name in [
        "permanent",
        PERMANENT,
        &PERMANENT.replace('/', "%2F"),
        &format!("{PERMANENT}/"),
        "sqlite%3A%2F%2Fvar%2Fmail%2Ferror%2Fremote-delivery%2Fpermanent%2F",
    ] {
        let page = page(&service, &format!("/ui/repositories/{name}?code=550"));
        assert!(page.contains(&format!("<h1>{PERMANENT}</h1>")) && page.contains("value=\"550\""), "{name}: {page}");
    }
    ask(&service, "GET", "/ui/repositories/nowhere").expect(404);
    ask(&service, "GET", "/ui/repositories/permanent?code=abc").expect(400);
    let cleaned = ask(&service, "GET", "/ui/repositories/permanent?code=550&text=&sender=&order=oldest").expect(303);
    assert_eq!(location(&cleaned), format!("/ui/repositories/{PERMANENT}?code=550&order=oldest"));
    let mut seen = Vec::new();
    let mut path = format!("/ui/repositories/{PERMANENT}?code=550&order=oldest");
    loop {
        let page = page(&service, &path);
        seen.extend(
            page.split("<a href=\"/ui/mails/").skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned),
        );
        let next =
            page.split("href=\"").find(|link| link.contains("rel=\"next\"")).and_then(|link| link.split('"').next());
        let Some(next) = next else { break };
        path = next.replace("&amp;", "&").replace("&#38;", "&");
    }
    assert_eq!(seen, keys(&service, PERMANENT, ""), "each once, oldest first");
    assert!(page(&service, "/ui/repositories/permanent?code=451").contains("Nothing matches"));
    assert!(page(&service, "/ui/spool").contains("Nothing rests here"));
    service.stop();
}

#[test]
fn message_and_evidence_are_downloaded_under_the_pages() {
    let peer = refusing();
    let (_relay, service) = failed(1, "gone.example", &peer);
    let key = keys(&service, PERMANENT, "").remove(0);
    let message = ask(&service, "GET", &format!("/ui/mails/{key}/message")).expect(200);
    let rest = ask_with(
        &service,
        "GET",
        &format!("/mailRepositories/permanent/mails/{key}"),
        "Accept: message/rfc822\r\n",
        "",
    );
    assert_eq!(message.body, rest.expect(200).body);
    assert!(
        message.head.contains(&format!("filename=\"{key}.eml\"")) && message.head.contains("no-store"),
        "{}",
        message.head
    );
    let zip = ask(&service, "GET", &format!("/ui/mails/{key}/bundle?message=true")).expect(200);
    assert!(zip.body.starts_with(b"PK") && zip.head.contains("application/zip"), "{}", zip.head);
    service.stop();
}

#[test]
fn a_role_is_offered_what_it_may_do_and_no_more() {
    let peer = refusing();
    let setup = Setup::gateway(peer.address()).top(
        "smtp: { listen: [\"127.0.0.1:0\"] }\nadmin: { listen: \"127.0.0.1:0\", password: [\"full\"], \
         passwordNodelete: [\"keep\"], passwordReadonly: [\"look\"] }",
    );
    let relay = setup.build();
    relay.fill([vec!["u@gone.example".to_owned()]]);
    let service = Service::start(&relay);
    let full = "Password: full\r\n";
    until("it has failed", || {
        let keys = ask_with(&service, "GET", "/mailRepositories/permanent/mails", full, "");
        keys.status == 200 && keys.json().as_array().is_some_and(|keys| keys.len() == 1)
    });
    for (password, offered) in [
        ("full", vec!["reprocess", "move", "acknowledge", "remove"]),
        ("keep", vec!["reprocess", "move", "acknowledge"]),
        ("look", vec![]),
    ] {
        let login = send(&service, "/ui/login", &[("password".to_owned(), password.to_owned())]).expect(303);
        let cookie = login.head.lines().find_map(|line| line.split_once("redeliver=")).expect("a cookie").1;
        let header = format!("Cookie: redeliver={}\r\n", cookie.split(';').next().expect("a value"));
        let list = ask_with(&service, "GET", "/ui/repositories/permanent", &header, "").expect(200).text();
        for verb in ["reprocess", "move", "acknowledge", "remove"] {
            let path = format!("/ui/act/{verb}?repository={PERMANENT}");
            assert_eq!(list.contains(&format!("/ui/act/{verb}?")), offered.contains(&verb), "{password} {verb}");
            let status = if offered.contains(&verb) { 200 } else { 403 };
            ask_with(&service, "GET", &path, &header, "").expect(status);
        }
        assert_eq!(ask_with(&service, "GET", "/tasks", &header, "").status, 401, "a session opens pages alone");
    }
    service.stop();
}

#[test]
fn however_much_a_peer_says_a_page_stays_small() {
    let line = "<&\"'".repeat(700);
    let peer = SmtpSink::start(script![on("RCPT") => raw(format!("550-{line}\r\n550-{line}\r\n550 {line}\r\n"))]);
    let relay = served(Setup::gateway(peer.address()));
    let many: Vec<_> = (0..70).map(|number| format!("r{number}@gone.example")).collect();
    relay.fill((0..40).map(|number| vec![format!("u{number}@gone.example")]).chain([many]));
    let service = Service::start(&relay);
    service.wait_until_settled();
    let last = keys(&service, PERMANENT, "recipient=r0%40gone.example").remove(0);
    for path in
        ["/ui/", "/ui/repositories/permanent", "/ui/act/remove?repository=permanent", &format!("/ui/mails/{last}")]
    {
        let page = page(&service, path);
        assert!(page.contains("<h1>") && !page.contains(&line), "{path}");
    }
    let mail = page(&service, &format!("/ui/mails/{last}"));
    assert!(mail.contains("20 more recipients") && mail.contains(&format!("/ui/mails/{last}?whole=true")), "{mail}");
    let whole = ask(&service, "GET", &format!("/ui/mails/{last}?whole=true")).expect(200).text();
    assert!(whole.contains("r69@gone.example"));
    service.stop();
}

#[test]
fn what_is_asked_of_notifications_stands_on_the_page_of_a_mail() {
    let peer = refusing();
    let relay = served(Setup::gateway(peer.address()));
    let service = Service::start(&relay);
    let words = ["sendmail", "-N", "failure,delay", "-R", "hdrs", "-V", "env1", "-f", "a@relay.test", "u@gone.example"];
    relay.command_with_input(&words, b"Subject: x\n\ny\n").expect(0);
    service.wait_until_settled();
    let key = keys(&service, PERMANENT, "").remove(0);
    let mail = page(&service, &format!("/ui/mails/{key}"));
    assert!(mail.contains("RET=HDRS ENVID=env1 NOTIFY=FAILURE,DELAY"), "{mail}");
    service.stop();
}
