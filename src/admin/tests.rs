//! Requests as scripts and browsers make them, against a real store and no socket.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, RwLock};

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

use super::{Context, JobRun, RunJobs, Settings, Shared, Site, router};
use crate::clients::{Columns, Users, WrongPasswords};
use crate::clock::Clock;
use crate::health::{Health, Status};
use crate::ingest::{Here, Intake};
use crate::live::Live;
use crate::logging::LostLines;
use crate::mail::{Domain, RepositoryPath};
use crate::metrics::Metrics;
use crate::pipeline;
use crate::spool::Spool;
use crate::stop::Stop;
use crate::store::{SqliteStore, Store};
use crate::tasks::Tasks;
use crate::yaml::{Document, Reading};

/// Nobody runs jobs here.
struct NoJobs;

impl RunJobs for NoJobs {
    fn begin(&self, _: &str, _: bool) -> Option<JobRun> {
        None
    }
}

pub(super) struct Bench {
    _directory: TempDir,
    pub(super) shared: Arc<Shared>,
}

impl Bench {
    pub(super) async fn new(settings: Settings) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let store: Arc<dyn Store> =
            Arc::new(SqliteStore::open(&directory.path().join("t.db"), "test", &Clock::system()).expect("opens"));
        let clock = Clock::system();
        let repository = RepositoryPath::parse("var/mail/error").expect("a path");
        store.ensure_repositories(&[repository]).await.expect("known");
        let health = Arc::new(Health::new(clock.instant()));
        let (metrics, wrong_passwords) = (Metrics::new(), Arc::new(WrongPasswords::default()));
        let here = Here::new(Domain::parse("relay.test").expect("a domain"), |_| false);
        let intake = Live::new(Intake { spool: Spool::unused(), kept: BTreeSet::new(), here });
        let stop = Stop::default();
        let tasks = Tasks::new(Arc::clone(&store), clock.clone(), stop.clone());
        let (jobs, lost_lines) = (Arc::new(NoJobs), LostLines::default());
        let context = Context { store, health, clock, metrics, wrong_passwords, tasks, intake, jobs, stop, lost_lines };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 8000));
        let sessions = super::page::Sessions::default();
        let shared = Shared { settings: RwLock::new(Arc::new(settings)), context, address, sessions };
        Self { _directory: directory, shared: Arc::new(shared) }
    }

    /// A request, its header fields written as `name: value` lines; status and body.
    pub(super) async fn ask(&self, method: &str, path: &str, header: &str) -> (StatusCode, String) {
        let (status, _, body) = self.send(method, path, header, "").await;
        (status, body)
    }

    /// The same with a body; the answer with its header.
    pub(super) async fn send(
        &self,
        method: &str,
        path: &str,
        header: &str,
        body: &str,
    ) -> (StatusCode, HeaderMap, String) {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in header.lines().filter_map(|line| line.split_once(": ")) {
            request = request.header(name, value);
        }
        let request = request.body(Body::from(body.to_owned())).expect("a request");
        let response = router(Arc::clone(&self.shared)).oneshot(request).await.expect("it cannot fail");
        let (head, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
        (head.status, head.headers, String::from_utf8(body.to_vec()).expect("text"))
    }

    async fn json(&self, path: &str) -> (u16, Value) {
        let (status, body) = self.ask("GET", path, "host: localhost:8000").await;
        (status.as_u16(), serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
    }
}

#[tokio::test]
async fn health_checks_answer_as_james_does() {
    let bench = Bench::new(Settings::default()).await;
    let component = |name: &str, status: &str, cause: Value| json!({"componentName": name, "escapedComponentName": name, "status": status, "cause": cause});
    let (status, body) = bench.json("/healthcheck").await;
    assert_eq!((status, &body["status"]), (200, &json!("healthy")));
    assert_eq!(body["checks"][0], component("EmptyErrorMailRepository", "healthy", Value::Null));
    assert_eq!(body["checks"].as_array().map(Vec::len), Some(6));
    let health = &bench.shared.context.health;
    health.schedules.unwell(Status::Degraded, "why");
    assert_eq!(bench.json("/healthcheck").await.0, 200);
    assert_eq!(bench.json("/healthcheck?strict").await.0, 503);
    assert_eq!(bench.json("/healthcheck?check=Store&check=Spool&strict").await.0, 200);
    health.spool.unwell(Status::Unhealthy, "no room");
    assert_eq!(bench.json("/healthcheck").await.0, 503);
    assert_eq!(bench.json("/healthcheck/checks/Spool").await, (503, component("Spool", "unhealthy", json!("no room"))));
    assert_eq!(bench.json("/healthcheck/checks/Store").await.0, 200);
    let (status, body) = bench.json("/healthcheck/checks").await;
    assert_eq!((status, &body[3]), (200, &json!({"componentName": "Schedules", "escapedComponentName": "Schedules"})));
    for unknown in ["/healthcheck/checks/Nope", "/healthcheck?check=Nope"] {
        let message = "Component(s) with name Nope cannot be found";
        let body = json!({"statusCode": 404, "type": "notFound", "message": message, "details": null});
        assert_eq!(bench.json(unknown).await, (404, body));
    }
}

#[tokio::test]
async fn queues_are_the_spool_and_the_outgoing_names() {
    let rule = |outgoing: &str| {
        format!("{{match: AtMost=2, mailet: RemoteDelivery, outgoing: {outgoing}, bounceProcessor: rde}}")
    };
    let keep = "{match: All, mailet: ToRepository, repositoryPath: 'sqlite://var/x/'}";
    let yaml = format!("relay: [{}, {}, {}, {keep}]\nrde: [{keep}]\n", rule("outgoing"), rule("slow"), rule("slow"));
    let document = Document::parse(Path::new("f"), yaml.as_bytes()).expect("YAML");
    let reading = Reading::new(Path::new("f"));
    let processors = pipeline::Config::read(document.root(), &["sqlite".to_owned()].into(), "relay", &reading);
    let site = Arc::new(Site { processors, ..Site::default() });
    let settings = Settings { site, ..Settings::default() };
    let bench = Bench::new(settings).await;
    assert_eq!(bench.json("/mailQueues").await, (200, json!(["outgoing", "slow", "spool"])));
    assert_eq!(bench.json("/mailQueues/spool").await, (200, json!({"name": "spool", "size": 0})));
    let (status, body) = bench.json("/mailQueues/nope").await;
    assert_eq!((status, &body["message"], &body["type"]), (404, &json!("nope can not be found"), &json!("notFound")));
    for path in ["/mailQueues/%ff", "/healthcheck/checks/%ff"] {
        assert_eq!(bench.json(path).await.1["statusCode"], 400, "{path}");
    }
}

#[tokio::test]
async fn an_unknown_route_is_not_found_and_a_known_one_says_its_methods() {
    let bench = Bench::new(Settings::default()).await;
    let (status, body) = bench.json("/x/y?z=1").await;
    assert_eq!((status, &body["message"]), (404, &json!("GET /x/y can not be found")));
    let (status, body) = bench.ask("DELETE", "/mailQueues", "host: localhost").await;
    assert_eq!(status, 405);
    assert!(body.contains("DELETE /mailQueues is not possible"), "{body}");
}

#[tokio::test]
async fn without_a_password_only_this_machine_by_its_own_name_may_ask() {
    let bench = Bench::new(Settings::default()).await;
    for (header, status) in [
        ("host: localhost", 200),
        ("host: LOCALHOST:9000", 200),
        ("host: 127.0.0.1:8000", 200),
        ("host: [::1]:8000", 200),
        ("host: evil.example", 403),
        ("host: 127.0.0.1.evil.example", 403),
        ("host: localhost.evil.example:8000", 403),
        ("host: 192.0.2.1", 403),
        ("host: [::1]evil.example", 403),
        ("host: localhost:evil.example", 403),
        ("host: localhost\nhost: evil.example", 400),
        ("host: localhost\nhost: localhost", 400),
        ("", 403),
    ] {
        assert_eq!(bench.ask("GET", "/healthcheck", header).await.0, status, "{header}");
    }
}

#[tokio::test]
async fn another_sites_page_changes_nothing() {
    let settings = Settings { full: vec!["secret".into()], ..Settings::default() };
    for bench in [Bench::new(Settings::default()).await, Bench::new(settings).await] {
        let host = "host: localhost:8000\npassword: secret\n";
        for (header, status) in [
            ("", 404),
            ("origin: http://localhost:8000", 404),
            ("sec-fetch-site: same-origin", 404),
            ("origin: http://evil.example", 403),
            ("origin: http://localhost:9999", 403),
            ("origin: null", 403),
            ("origin: http://localhost:8000\norigin: http://evil.example", 403),
            ("sec-fetch-site: none\nsec-fetch-site: cross-site", 403),
            ("sec-fetch-site: none", 404),
            ("sec-fetch-site: same-site", 403),
            ("sec-fetch-site: cross-site", 403),
        ] {
            assert_eq!(bench.ask("PATCH", "/x", &format!("{host}{header}")).await.0, status, "{header}");
        }
        let read = format!("{host}origin: http://evil.example");
        assert_eq!(bench.ask("GET", "/mailQueues", &read).await.0, 200, "reading changes nothing");
    }
}

#[tokio::test]
async fn passwords_give_what_james_has_them_give() {
    let bench = Bench::new(Settings {
        full: vec!["a1".into(), "a2".into()],
        read_only: vec!["r".into()],
        no_delete: vec!["n".into()],
        ..Settings::default()
    })
    .await;
    let (get, delete, patch) = ("GET", "DELETE", "PATCH");
    for (method, header, status, body) in [
        (get, "", 401, "No Password in header."),
        (get, "password: a", 401, "Wrong password."),
        (get, "password: a11", 401, "Wrong password."),
        (get, "password: ", 401, "Wrong password."),
        (get, "authorization: Basic a1", 401, "No Password in header."),
        (get, "password: a1", 200, ""),
        (get, "authorization: bearer a2", 200, ""),
        (get, "password: r", 200, ""),
        (patch, "password: r", 403, "Insufficient permissions for this operation."),
        (delete, "password: n", 403, "Insufficient permissions for this operation."),
        (patch, "password: n", 405, ""),
        (delete, "password: a1", 405, ""),
    ] {
        let (found, text) = bench.ask(method, "/mailQueues", header).await;
        assert_eq!(found, status, "{method} {header}");
        assert!(text.contains(body), "{text}");
    }
    assert_eq!(bench.ask("GET", "/healthcheck/checks", "host: anything.example").await.0, 200);
    assert_eq!(bench.ask("GET", "/healthchecks", "").await.0, 401);
}

#[tokio::test]
async fn who_guesses_passwords_is_not_heard_any_more() {
    let bench = Bench::new(Settings { full: vec!["right".into()], ..Settings::default() }).await;
    let mut guesses = 0;
    let refused = loop {
        let (status, body) = bench.ask("GET", "/mailQueues", &format!("password: {guesses}")).await;
        if status != StatusCode::UNAUTHORIZED {
            break (status, body);
        }
        guesses += 1;
        assert!(guesses < 100);
    };
    assert_eq!(refused.0, StatusCode::TOO_MANY_REQUESTS);
    let body: Value = serde_json::from_str(&refused.1).expect("JSON");
    assert_eq!((&body["statusCode"], &body["type"]), (&json!(429), &json!("WrongState")));
    assert_eq!(bench.ask("GET", "/mailQueues", "password: right").await.0, 429, "or the right one would be found");
    assert_eq!(bench.ask("GET", "/mailQueues", "").await.0, 401);
    assert_eq!(bench.ask("GET", "/healthcheck", "").await.0, 200);
}

#[tokio::test]
async fn users_have_names_and_roles() {
    use base64::Engine;
    let file = tempfile::NamedTempFile::new().expect("a file");
    let hash = "$argon2id$v=19$m=8,t=1,p=1$c2FsdCBvZiBhIHRlc3Q$";
    let line = |name: &str, role: &str, password: &str| {
        use argon2::{Argon2, Params, PasswordHasher};
        let cheap = Argon2::from(Params::new(8, 1, 1, None).expect("valid"));
        let hash = cheap.hash_password_with_salt(password.as_bytes(), b"salt of a test").expect("a hash");
        format!("{name}:{role}:{hash}\n")
    };
    assert!(line("x", "full", "x").contains(hash), "as the command argon2 writes it");
    let text = line("anna", "full", "a") + &line("ben", "nodelete", "b") + &line("cat", "readonly", "c");
    std::fs::write(file.path(), text).expect("written");
    let users = Users::load(file.path(), Columns::NameRoleHash, Arc::default()).expect("valid");
    let bench = Bench::new(Settings { users: Some(Arc::new(users)), ..Settings::default() }).await;
    let basic = |pair: &str| format!("authorization: Basic {}", base64::prelude::BASE64_STANDARD.encode(pair));
    for (method, pair, status) in [
        ("GET", "anna:a", 200),
        ("GET", "anna:b", 401),
        ("GET", "nobody:a", 401),
        ("DELETE", "anna:a", 405),
        ("DELETE", "ben:b", 403),
        ("PATCH", "ben:b", 405),
        ("PATCH", "cat:c", 403),
        ("GET", "cat:c", 200),
    ] {
        assert_eq!(bench.ask(method, "/mailQueues", &basic(pair)).await.0, status, "{method} {pair}");
    }
}

#[tokio::test]
async fn behind_a_proxy_our_origin_is_the_configured_one() {
    let url = Some("https://relay.example.org".parse().expect("a URL"));
    let bench = Bench::new(Settings { url, ..Settings::default() }).await;
    for (header, status) in [
        ("host: relay.example.org\norigin: https://relay.example.org", 404),
        ("host: localhost\norigin: https://relay.example.org", 404),
        ("host: localhost\norigin: http://localhost", 403),
        ("host: other.example.org", 403),
    ] {
        assert_eq!(bench.ask("PATCH", "/x", header).await.0, status, "{header}");
    }
}

#[tokio::test]
async fn a_cursor_that_is_none_of_ours_is_a_mistake_and_no_trouble() {
    let bench = Bench::new(Settings::default()).await;
    for path in ["/attempts", "/groups", "/operations", "/runs"] {
        for cursor in ["null", "", "1-2", "%00", "a-b-c-d", "99999999999999999999999"] {
            let (status, body) = bench.json(&format!("{path}?cursor={cursor}")).await;
            assert_eq!((status, &body["type"]), (400, &json!("InvalidArgument")), "{path} {cursor}: {body}");
        }
    }
}

/// Every route of the router, by sending each path of the document each method.
#[tokio::test]
async fn the_document_has_each_route_and_its_methods() {
    let bench = Bench::new(Settings::default()).await;
    let (status, document) = bench.json("/openapi.json").await;
    assert_eq!((status, &document["openapi"]), (200, &json!("3.1.0")));
    let paths = document["paths"].as_object().expect("paths");
    let operations = || paths.values().flat_map(|item| item.as_object().expect("methods").values());
    let names: BTreeSet<_> = operations().map(|one| one["operationId"].as_str().expect("a name")).collect();
    assert_eq!(names.len(), operations().count(), "each has a name of its own: {names:?}");
    for parameter in operations().flat_map(|one| one["parameters"].as_array().expect("parameters")) {
        assert!(parameter["description"].is_string(), "nobody says what this is: {parameter}");
    }
    assert!(paths.len() >= 6, "{paths:?}");
    for (path, item) in paths {
        let concrete = path.replace(['{', '}'], "");
        for method in ["get", "put", "post", "patch", "delete"] {
            let (status, body) = bench.ask(&method.to_uppercase(), &concrete, "host: localhost").await;
            let is_routed = status != StatusCode::METHOD_NOT_ALLOWED;
            assert_eq!(is_routed, item.get(method).is_some(), "{method} {path}: {status} {body}");
        }
    }
    assert_eq!(bench.ask("GET", "/", "host: localhost").await.0, 303, "to the pages");
    assert!(!paths.keys().any(|path| path.starts_with("/ui")), "pages are for people");
}

#[tokio::test]
async fn a_body_of_another_type_is_refused_with_what_would_be_right() {
    let bench = Bench::new(Settings::default()).await;
    let (json, message) = (("/jobs/spool/run", "{}", 404), ("/mail-transfer-service", "Subject: s\r\n\r\n", 400));
    for ((path, body, taken), header, wanted) in [
        (json, "", None),
        (json, "content-type: application/json; charset=utf-8", None),
        (json, "content-type: application/merge-patch+json", None),
        // What curl says where nobody told it.
        (json, "content-type: application/x-www-form-urlencoded", None),
        (json, "content-encoding: identity", None),
        (json, "content-type: text/plain", Some("application/json")),
        (json, "content-type: multipart/form-data; boundary=b", Some("application/json")),
        (json, "content-type: message/rfc822", Some("application/json")),
        (json, "content-type: ", Some("application/json")),
        (json, "content-encoding: gzip", Some("identity")),
        (message, "", None),
        (message, "content-type: Message/RFC822", None),
        (message, "content-type: application/octet-stream", None),
        (message, "content-type: multipart/form-data; boundary=b", Some("message/rfc822")),
        (message, "content-type: application/json", Some("message/rfc822")),
        (message, "content-type: message/rfc822\ncontent-encoding: br", Some("identity")),
    ] {
        let header = format!("host: localhost\n{header}");
        let (status, answered, text) = bench.send("POST", path, &header, body).await;
        let said = ["accept", "accept-encoding"].map(|name| answered.get(name).and_then(|value| value.to_str().ok()));
        assert_eq!(status, if wanted.is_some() { 415 } else { taken }, "{path} {header}: {text}");
        assert_eq!(said.into_iter().flatten().next(), wanted, "{path} {header}");
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON")["statusCode"], status.as_u16());
        let is_large = "content-length: 99999999";
        let (status, ..) = bench.send("POST", path, &format!("{header}\n{is_large}"), body).await;
        assert_eq!(status, if wanted.is_some() { 415 } else { 413 }, "it is refused before it is read");
        // Where there is no body it has no type.
        assert_ne!(bench.send("POST", path, &header, "").await.0, 415, "{path} {header}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_told_with_what_is() {
    let bench = Bench::new(Settings::default()).await;
    let host = "host: localhost";
    for (method, path, body, message, details) in [
        ("GET", "/mailRepositories/nowhere", "", "nowhere does not exist", "known are var/mail/error"),
        ("GET", "/groups?repository=nowhere", "", "nowhere does not exist", "known are var/mail/error"),
        (
            "PATCH",
            "/mailRepositories/error/mails",
            "{\"mailRepository\": \"var/away\"}",
            "The target repository 'var/away' does not exist",
            "known are var/mail/error",
        ),
        ("GET", "/mailQueues/nowhere", "", "nowhere can not be found", "known are spool"),
        ("GET", "/jobs/nothing", "", "nothing can not be found", "there is none"),
        ("POST", "/schedules/never/pause", "", "never can not be found", "there is none"),
    ] {
        let (_, _, text) = bench.send(method, path, host, body).await;
        let body: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((&body["message"], &body["details"]), (&json!(message), &json!(details)), "{method} {path}");
    }
}

#[tokio::test]
async fn conditions_in_a_body_that_nobody_reads_are_refused() {
    let bench = Bench::new(Settings::default()).await;
    let id = "00000000-0000-0000-0000-000000000000";
    for (method, path, right) in [
        ("DELETE", "/mailRepositories/error/mails", 201),
        ("DELETE", "/mailRepositories/error/mails/K", 204),
        ("DELETE", "/mailRepositories/error/mails/K/acknowledge", 404),
        ("DELETE", "/mailQueues/spool/mails", 201),
        ("DELETE", &format!("/tasks/{id}"), 204),
        ("PUT", "/mailRepositories/var%2Fmail%2Ferror?protocol=", 400),
        ("POST", "/schedules/never/resume", 404),
    ] {
        let ask = async |body| bench.send(method, path, "host: localhost", body).await;
        let (status, _, text) = ask("{\"sender\": \"a@x.example\"}").await;
        assert!(status == 400 && text.contains("reads no body"), "{method} {path}: {text}");
        for nothing in ["", " \r\n", "{}"] {
            let (status, _, text) = ask(nothing).await;
            assert!(status == right && !text.contains("reads no body"), "{method} {path}: {text}");
        }
    }
    let (_, tasks) = bench.json("/tasks").await;
    assert_eq!(tasks.as_array().map(Vec::len), Some(6), "those that were right: {tasks}");
}
