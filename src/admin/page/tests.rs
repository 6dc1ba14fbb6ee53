//! Pages as a browser asks for them, and as others try to: sessions, tokens, headers.

use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode, header};

use super::super::tests::Bench;
use super::super::{Control, Settings};
use crate::clients::{Columns, Users};

const HERE: &str = "host: localhost:8000\n";

/// A browser's own form on a page of ours.
const OURS: &str = "host: localhost:8000\norigin: http://localhost:8000\nsec-fetch-site: same-origin\n";

fn guarded() -> Settings {
    Settings {
        full: vec!["full".into()],
        no_delete: vec!["nodelete".into()],
        read_only: vec!["look".into()],
        ..Settings::default()
    }
}

fn location(head: &HeaderMap) -> &str {
    head[header::LOCATION].to_str().expect("text")
}

/// Logs in; the cookie's header field.
async fn log_in(bench: &Bench, password: &str) -> String {
    let body = format!("password={password}&next=%2Fui%2F");
    let (status, head, _) = bench.send("POST", "/ui/login", OURS, &body).await;
    assert_eq!((status, location(&head)), (StatusCode::SEE_OTHER, "/ui/"));
    let cookie = head[header::SET_COOKIE].to_str().expect("text");
    format!("cookie: {}\n", cookie.split(';').next().expect("a pair"))
}

/// The value of the hidden field `token` in the form that is sent to `action`.
fn token(page: &str, action: &str) -> String {
    let form = page.split(&format!("action=\"{action}\"")).nth(1).unwrap_or_else(|| panic!("{action}: {page}"));
    let value = form.split("name=\"token\" value=\"").nth(1).expect("a token");
    value.split('"').next().expect("its end").to_owned()
}

#[tokio::test]
async fn without_a_password_the_pages_are_open_and_there_is_no_login() {
    let bench = Bench::new(Settings::default()).await;
    for (path, leads) in
        [("/", "/ui/"), ("/ui", "/ui/"), ("/ui/login", "/ui/"), ("/ui/login?next=%2Fui%2Ftasks", "/ui/tasks")]
    {
        let (status, head, _) = bench.send("GET", path, HERE, "").await;
        assert_eq!((status, location(&head)), (StatusCode::SEE_OTHER, leads), "{path}");
    }
    let (status, head, page) = bench.send("GET", "/ui/", HERE, "").await;
    assert_eq!(
        (status, head[header::CONTENT_TYPE].to_str().expect("text")),
        (StatusCode::OK, "text/html; charset=utf-8")
    );
    assert!(page.contains("<h1>Overview</h1>") && page.contains("<title>Overview - redeliver</title>"), "{page}");
    assert!(!page.contains("Log out") && !page.contains("style="), "{page}");
}

#[tokio::test]
async fn every_answer_of_a_page_has_the_same_headers() {
    let bench = Bench::new(guarded()).await;
    let cookie = log_in(&bench, "full").await;
    let (_, _, page) = bench.send("GET", "/ui/", &format!("{HERE}{cookie}"), "").await;
    let style = page.split("href=\"/ui/static/style").nth(1).and_then(|rest| rest.split('"').next()).expect("a style");
    let style = format!("/ui/static/style{style}");
    for (method, path, cookie, status) in [
        ("GET", "/ui/", cookie.as_str(), 200),
        ("GET", "/ui/", "", 303),
        ("GET", "/ui/login", "", 200),
        ("GET", style.as_str(), "", 200),
        ("GET", "/ui/static/nothing.css", "", 404),
        ("GET", "/ui/nothing", cookie.as_str(), 404),
        ("POST", "/ui/logout", cookie.as_str(), 403),
        ("DELETE", "/ui/", cookie.as_str(), 403),
    ] {
        let (found, head, body) = bench.send(method, path, &format!("{HERE}{cookie}"), "").await;
        assert_eq!(found, status, "{method} {path}: {body}");
        for (name, value) in [
            (
                "content-security-policy",
                "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                 form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
            ),
            ("referrer-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
        ] {
            let all: Vec<_> = head.get_all(name).iter().collect();
            assert_eq!(all, [value], "{method} {path} {name}");
        }
        let is_page = ![303, 200].contains(&status) || path == "/ui/login";
        assert!(!is_page || body.contains("<h1>"), "a refusal is a page: {body}");
    }
}

#[tokio::test]
async fn whoever_has_no_session_is_led_to_the_login_and_back() {
    let bench = Bench::new(guarded()).await;
    for (path, next) in [
        ("/ui/", "%2Fui%2F"),
        (
            "/ui/repositories/permanent?code=550&text=a%26b",
            "%2Fui%2Frepositories%2Fpermanent%3Fcode%3D550%26text%3Da%2526b",
        ),
        ("/ui//evil.example", "%2Fui%2F"),
        ("/ui/mails/../../metrics", "%2Fui%2F"),
    ] {
        let (status, head, _) = bench.send("GET", path, HERE, "").await;
        assert_eq!((status, location(&head)), (StatusCode::SEE_OTHER, format!("/ui/login?next={next}").as_str()));
    }
    let browser = format!("{HERE}accept: text/html,*/*\n");
    let (status, head, _) = bench.send("GET", "/", &browser, "").await;
    assert_eq!((status, location(&head)), (StatusCode::SEE_OTHER, "/ui/login?next=%2Fui%2F"));
    for (next, leads) in [
        ("%2Fui%2Frepositories%2Fpermanent%3Fcode%3D550", "/ui/repositories/permanent?code=550"),
        ("https%3A%2F%2Fevil.example%2Fui%2F", "/ui/"),
        ("%2F%2Fevil.example%2Fui%2F", "/ui/"),
        ("%2Fmetrics", "/ui/"),
        ("%2Fui%2F%0d%0aSet-Cookie%3A+a%3Db", "/ui/"),
        ("", "/ui/"),
    ] {
        let (status, head, _) = bench.send("POST", "/ui/login", OURS, &format!("password=look&next={next}")).await;
        assert_eq!((status, location(&head)), (StatusCode::SEE_OTHER, leads), "{next}");
    }
    let (_, _, page) = bench.send("GET", "/ui/login?next=%2Fui%2F%22%3E%3Cscript%3E", HERE, "").await;
    assert!(!page.contains("\"><script>"), "{page}");
}

#[tokio::test]
async fn the_cookie_is_for_the_pages_alone() {
    for (settings, secure) in [
        (guarded(), false),
        (Settings { url: "https://localhost:8000".parse().ok(), ..guarded() }, true),
        (Settings { url: "http://localhost:8000".parse().ok(), ..guarded() }, false),
    ] {
        let bench = Bench::new(settings).await;
        let origin = if secure { "https" } else { "http" };
        let header = format!("{HERE}origin: {origin}://localhost:8000\n");
        let (_, head, _) = bench.send("POST", "/ui/login", &header, "password=full").await;
        let cookie = head[header::SET_COOKIE].to_str().expect("text");
        let (value, flags) = cookie.strip_prefix("redeliver=").and_then(|rest| rest.split_once("; ")).expect("flags");
        assert_eq!(value.len(), 43, "32 octets");
        let expected =
            if secure { "HttpOnly; SameSite=Lax; Path=/ui; Secure" } else { "HttpOnly; SameSite=Lax; Path=/ui" };
        assert_eq!(flags, expected);
        let header = format!("{HERE}cookie: other=1; redeliver={value}\n");
        assert_eq!(bench.ask("GET", "/ui/", &header).await.0, 200);
        for path in ["/metrics", "/tasks", "/mailRepositories", "/"] {
            assert_eq!(bench.ask("GET", path, &header).await.0, 401, "{path}");
        }
        assert_eq!(bench.ask("GET", "/ui/", &format!("{HERE}password: full\n")).await.0, 303);
    }
}

#[tokio::test]
async fn a_form_is_taken_only_from_a_page_of_ours_with_its_own_token() {
    for settings in [Settings::default(), guarded()] {
        let bench = Bench::new(settings).await;
        let is_guarded = bench.shared.settings().has_password();
        let cookie = if is_guarded { log_in(&bench, "full").await } else { String::new() };
        let visitor = bench.visitor(&cookie);
        let form = format!("token={}", visitor.token("/ui/logout"));
        for (header, expected) in [
            ("origin: http://localhost:8000\n", 303),
            ("origin: http://localhost:8000\nsec-fetch-site: same-origin\n", 303),
            ("", 403),
            ("origin: null\n", 403),
            ("origin: http://evil.example\n", 403),
            ("origin: http://localhost:9000\n", 403),
            ("origin: http://localhost:8000\norigin: http://evil.example\n", 403),
            ("origin: http://localhost:8000\nsec-fetch-site: none\n", 403),
            ("origin: http://localhost:8000\nsec-fetch-site: same-site\n", 403),
            ("origin: http://localhost:8000\nsec-fetch-site: cross-site\n", 403),
        ] {
            let cookie = if is_guarded { log_in(&bench, "full").await } else { String::new() };
            let form = format!("token={}", bench.visitor(&cookie).token("/ui/logout"));
            let (status, _, body) = bench.send("POST", "/ui/logout", &format!("{HERE}{cookie}{header}"), &form).await;
            assert_eq!(status, expected, "{header}: {body}");
        }
        let another = format!("token={}", visitor.token("/ui/act/remove"));
        for wrong in ["", "token=", "token=AAAA", another.as_str(), &format!("{form}x")] {
            let (status, _, page) = bench.send("POST", "/ui/logout", &format!("{OURS}{cookie}"), wrong).await;
            assert_eq!(status, 403, "{wrong}");
            assert!(page.contains("no token of this session"), "{page}");
        }
    }
}

#[tokio::test]
async fn a_login_is_taken_only_from_a_page_of_ours_and_guessing_is_hopeless() {
    let bench = Bench::new(guarded()).await;
    for header in ["", "origin: http://evil.example\n", "origin: http://localhost:8000\nsec-fetch-site: cross-site\n"] {
        let (status, head, _) = bench.send("POST", "/ui/login", &format!("{HERE}{header}"), "password=full").await;
        assert_eq!((status.as_u16(), head.get(header::SET_COOKIE)), (403, None), "{header}");
    }
    let mut guesses = 0;
    let head = loop {
        let (status, head, page) = bench.send("POST", "/ui/login", OURS, &format!("password=wrong{guesses}")).await;
        if status != StatusCode::UNAUTHORIZED {
            assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
            break head;
        }
        assert!(page.contains("That was not right"), "{page}");
        guesses += 1;
        assert!(guesses < 100);
    };
    assert!(head.contains_key(header::RETRY_AFTER));
    let (status, head, _) = bench.send("POST", "/ui/login", OURS, "password=full").await;
    assert_eq!((status.as_u16(), head.get(header::SET_COOKIE)), (429, None), "or the right one would be found");
    assert_eq!(bench.ask("GET", "/mailQueues", "password: full").await.0, 429, "it is one count");
}

#[tokio::test]
async fn logging_out_and_a_changed_password_end_a_session() {
    let bench = Bench::new(guarded()).await;
    let cookie = log_in(&bench, "full").await;
    let (_, _, page) = bench.send("GET", "/ui/", &format!("{HERE}{cookie}"), "").await;
    let form = format!("token={}", token(&page, "/ui/logout"));
    let (status, head, _) = bench.send("POST", "/ui/logout", &format!("{OURS}{cookie}"), &form).await;
    assert_eq!((status.as_u16(), location(&head)), (303, "/ui/login"));
    assert!(head[header::SET_COOKIE].to_str().expect("text").contains("Max-Age=0"));
    assert_eq!(bench.ask("GET", "/ui/", &format!("{HERE}{cookie}")).await.0, 303);
    let [full, look] = [log_in(&bench, "full").await, log_in(&bench, "look").await];
    Control(Arc::clone(&bench.shared)).set(Settings { full: vec!["another".into()], ..guarded() });
    assert_eq!(bench.ask("GET", "/ui/", &format!("{HERE}{full}")).await.0, 303);
    assert_eq!(bench.ask("GET", "/ui/", &format!("{HERE}{look}")).await.0, 200, "his is the same");
}

#[tokio::test]
async fn a_role_that_looks_changes_nothing_and_may_log_out() {
    let bench = Bench::new(guarded()).await;
    let cookie = log_in(&bench, "look").await;
    let (_, _, page) = bench.send("GET", "/ui/", &format!("{HERE}{cookie}"), "").await;
    assert!(page.contains("looking only"), "{page}");
    let visitor = bench.visitor(&cookie);
    let form = format!("token={}", visitor.token("/ui/act/reprocess"));
    let (status, _, page) = bench.send("POST", "/ui/act/reprocess", &format!("{OURS}{cookie}"), &form).await;
    assert_eq!(status, 403);
    assert!(page.contains("Your role may look"), "{page}");
    let form = format!("token={}", visitor.token("/ui/logout"));
    assert_eq!(bench.send("POST", "/ui/logout", &format!("{OURS}{cookie}"), &form).await.0, 303);
}

#[tokio::test]
async fn a_page_that_another_host_name_leads_to_is_not_shown_without_a_password() {
    let bench = Bench::new(Settings::default()).await;
    for (header, status) in [("host: evil.example\n", 403), ("host: localhost\nhost: localhost\n", 400), ("", 403)] {
        let (found, _, page) = bench.send("GET", "/ui/", header, "").await;
        assert_eq!(found, status, "{header}");
        assert!(page.contains("<h1>"), "{page}");
    }
}

impl Bench {
    /// Whoever has this cookie, as pages know him.
    fn visitor(&self, cookie: &str) -> super::Visitor {
        use std::net::{IpAddr, Ipv4Addr};
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let value = cookie.trim().strip_prefix("cookie: redeliver=");
        let Some(value) = value else { return super::Visitor::stranger(client, &self.shared) };
        let (_, tokens) = self.shared.sessions.find(value, self.shared.context.clock.instant()).expect("a session");
        super::Visitor { tokens, ..super::Visitor::stranger(client, &self.shared) }
    }
}

/// A file of users with these passwords.
fn users(all: &[(&str, &str, &str)]) -> Arc<Users> {
    use argon2::{Argon2, Params, PasswordHasher};
    let cheap = Argon2::from(Params::new(8, 1, 1, None).expect("valid"));
    let line = |(name, role, password): &(&str, &str, &str)| {
        let hash = cheap.hash_password_with_salt(password.as_bytes(), b"salt of a test").expect("a hash");
        format!("{name}:{role}:{hash}\n")
    };
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), all.iter().map(line).collect::<String>()).expect("written");
    Arc::new(Users::load(file.path(), Columns::NameRoleHash, Arc::default()).expect("valid"))
}

#[tokio::test]
async fn a_user_logs_in_by_name_and_stays_until_his_password_or_role_changes() {
    let both = [("anna", "full", "a"), ("ben", "readonly", "b")];
    let bench = Bench::new(Settings { users: Some(users(&both)), ..Settings::default() }).await;
    let (_, _, page) = bench.send("GET", "/ui/login", HERE, "").await;
    assert!(page.contains("name=\"name\"") && page.contains("autocomplete=\"username\""), "{page}");
    let mut cookies = Vec::new();
    for (form, expected) in [
        ("name=anna&password=a", 303),
        ("name=ben&password=b", 303),
        ("name=anna&password=b", 401),
        ("name=nobody&password=a", 401),
        ("name=&password=a", 401),
        ("password=a", 401),
    ] {
        let (status, head, _) = bench.send("POST", "/ui/login", OURS, form).await;
        assert_eq!(status, expected, "{form}");
        let cookie = head.get(header::SET_COOKIE).and_then(|cookie| cookie.to_str().ok()?.split(';').next());
        assert_eq!(cookie.is_some(), expected == 303, "{form}");
        cookies.extend(cookie.map(|cookie| format!("{HERE}cookie: {cookie}\n")));
    }
    for (cookie, who) in cookies.iter().zip(["anna, all rights", "ben, looking only"]) {
        assert!(bench.ask("GET", "/ui/", cookie).await.1.contains(who), "{who}");
    }
    let status = async |cookie: &String| bench.ask("GET", "/ui/", cookie).await.0.as_u16();
    let control = Control(Arc::clone(&bench.shared));
    control.set(Settings { users: Some(users(&[("anna", "full", "other"), both[1]])), ..Settings::default() });
    assert_eq!((status(&cookies[0]).await, status(&cookies[1]).await), (303, 200));
    control.set(Settings { users: Some(users(&[("ben", "full", "b")])), ..Settings::default() });
    assert_eq!(status(&cookies[1]).await, 303, "he is to log in with his new role");
}
