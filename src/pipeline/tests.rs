//! What a configuration does with a mail, with attempts that follow a script.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use proptest::prelude::*;

use super::part::tests::mail;
use super::*;
use crate::delivery::{Attempted, Checkpoint, Content, MemoryContent, NotBegun, Request, Uncounted};
use crate::mail::{AttributeValue, Attributes, DialogueEntry, Outcome, Planned, Stage, attribute};
use crate::yaml::{Document, Reading};

const SEED: &str = "
relay:
  - {match: AtMost=2, mailet: RemoteDelivery, outgoingQueue: outgoing, maxRetries: 0, sendpartial: true, bounceProcessor: rde}
  - {match: All, mailet: ToRepository, repositoryPath: 'cassandra://var/mail/error/remote-delivery/permanent/'}
rde:
  - {match: IsRemoteDeliveryTemporaryError, mailet: ToRepository, repositoryPath: 'cassandra://var/mail/error/remote-delivery/temporary/'}
  - {match: IsRemoteDeliveryPermanentError, mailet: ToRepository, repositoryPath: 'cassandra://var/mail/error/remote-delivery/permanent/'}
  - {match: All, mailet: ToRepository, repositoryPath: 'cassandra://var/mail/error/'}
";

const EXHAUSTED: &str = "
relay:
  - {match: AtMost=2, mailet: RemoteDelivery, bounceProcessor: rde}
  - {mailet: ToRepository, repositoryPath: permanent/}
rde:
  - {match: IsRemoteDeliveryPermanentError, mailet: ToRepository, repositoryPath: permanent}
  - {match: AttemptsExhausted=2, mailet: ToRepository, repositoryPath: permanent}
  - {match: All, mailet: ToRepository, repositoryPath: temporary}
";

fn schemes() -> std::collections::BTreeSet<String> {
    ["sqlite", "cassandra"].map(str::to_owned).into()
}

/// Reads processors; what is wrong, a line each.
fn read(text: &str) -> Result<Config, Vec<String>> {
    let document = Document::parse(Path::new("f"), text.as_bytes()).map_err(|error| vec![error.to_string()])?;
    let reading = Reading::new(Path::new("f"));
    let config = Config::read(document.root(), &schemes(), "p", &reading);
    let told: Vec<_> = document.diagnostics(reading).iter().map(ToString::to_string).collect();
    if told.is_empty() { Ok(config) } else { Err(told) }
}

/// Answers by the recipient's local part: `d...` is delivered, `f...` failed, `t...` trouble
/// of our own, `s...` stopped, anything else deferred; counts whom it tried.
#[derive(Default)]
struct Script {
    tried: Mutex<Vec<String>>,
    attempts: Mutex<Vec<Vec<String>>>,
}

fn answer(recipient: &crate::mail::Address) -> Recorded {
    let (outcome, code, reply) = match recipient.local_part().chars().next() {
        Some('d') => (Outcome::Delivered, 250, "250 2.0.0 ok"),
        Some('f') => (Outcome::Failed, 550, "550 5.1.1 no such user"),
        _ => (Outcome::Deferred, 451, "451 4.2.0 later"),
    };
    let cause = "scripted".to_owned();
    let mut recorded = Recorded::without_contact(recipient.clone(), outcome, Stage::Rcpt, cause, DateTime::UNIX_EPOCH);
    recorded.code = Some(code);
    recorded.reply = Some(reply.to_owned());
    recorded
}

#[async_trait]
impl Deliver for Arc<Script> {
    async fn attempt(&self, request: Request, checkpoint: &dyn Checkpoint) -> Attempted {
        let names: Vec<_> = request.recipients.iter().map(ToString::to_string).collect();
        self.attempts.lock().expect("no panic").push(names.clone());
        if names.iter().any(|name| name.starts_with('s')) {
            return Attempted::Stopped;
        }
        let outcomes: Vec<_> = request.recipients.iter().map(answer).collect();
        if names.iter().any(|name| name.starts_with('t')) {
            return Attempted::LocalError(outcomes, Uncounted::Trouble("no DNS server answered anything".into()));
        }
        self.tried.lock().expect("no panic").extend(names);
        checkpoint.begin(&request.attributes, &[]).await.expect("the test's checkpoint says yes");
        checkpoint.record(&outcomes, &[]).await;
        Attempted::Done(outcomes)
    }
}

/// Remembers what was to be durable before contact.
#[derive(Default)]
struct Notes(Mutex<Vec<Attributes>>);

#[async_trait]
impl Checkpoint for Notes {
    async fn begin(&self, attributes: &Attributes, _: &[Planned]) -> Result<(), NotBegun> {
        self.0.lock().expect("no panic").push(attributes.clone());
        Ok(())
    }
    async fn record(&self, _: &[Recorded], _: &[DialogueEntry]) {}
    fn content(&self) -> Arc<dyn Content> {
        Arc::new(MemoryContent(b"Subject: x\r\n\r\nx\r\n"[..].into()))
    }
}

impl Backing for Notes {}

struct Ran {
    ends: Vec<Disposition>,
    script: Arc<Script>,
    begun: Vec<Attributes>,
}

/// A store that cannot be read.
struct Unreadable;

#[async_trait]
impl Checkpoint for Unreadable {
    async fn begin(&self, _: &Attributes, _: &[Planned]) -> Result<(), NotBegun> {
        Ok(())
    }
    async fn record(&self, _: &[Recorded], _: &[DialogueEntry]) {}
    fn content(&self) -> Arc<dyn Content> {
        Arc::new(Unreadable)
    }
}

impl Backing for Unreadable {}

#[async_trait]
impl Content for Unreadable {
    async fn row(&self, _: u32) -> std::io::Result<bytes::Bytes> {
        Err(std::io::Error::other("the disk is gone"))
    }
}

fn pipeline(config: Config, script: &Arc<Script>) -> Pipeline {
    Pipeline::new(config, |_| Ok(Arc::new(Arc::clone(script)))).expect("a pipeline")
}

async fn run(config: Config, mail: Mail) -> Ran {
    let script = Arc::new(Script::default());
    let pipeline = pipeline(config, &script);
    let (notes, next) = (Notes::default(), AtomicU64::new(0));
    let new_key = || MailKey::parse(&format!("NEW{}", next.fetch_add(1, Ordering::Relaxed))).expect("a key");
    let ends = pipeline.run(mail, &notes, DateTime::UNIX_EPOCH, &new_key).await;
    Ran { ends, script, begun: notes.0.into_inner().expect("no panic") }
}

async fn seed(mail: Mail) -> Ran {
    run(read(SEED).expect("valid"), mail).await
}

/// `verdict key recipients -> end`, a line each.
fn picture(ends: &[Disposition]) -> Vec<String> {
    let line = |one: &Disposition| {
        let recipients: Vec<_> = one.mail.envelope.recipients.iter().map(|to| to.local_part().to_owned()).collect();
        let end = match &one.end {
            End::Delivered => "delivered".to_owned(),
            End::Repository(repository) => repository.last_segment().to_owned(),
            End::Dropped => "dropped".to_owned(),
            End::Stay(cause) => format!("stay {cause:?}"),
        };
        format!("{:?} {} {} -> {end}", one.verdict, one.mail.key, recipients.join(","))
    };
    ends.iter().map(line).collect()
}

#[tokio::test]
async fn a_mail_with_mixed_outcomes_is_split_and_the_deferred_part_keeps_the_key() {
    let ran = seed(mail("s@x.example", &["f1@x.example", "d1@x.example", "r1@x.example", "f2@x.example"])).await;
    assert_eq!(
        picture(&ran.ends),
        ["Delivered WHOLE d1 -> delivered", "Deferred WHOLE r1 -> temporary", "Failed NEW0 f1,f2 -> permanent",]
    );
    let (deferred, failed) = (&ran.ends[1].mail, &ran.ends[2].mail);
    assert_eq!((deferred.state.as_str(), failed.state.as_str()), ("rde", "rde"));
    assert_eq!(failed.origin.as_ref().map(MailKey::as_str), Some("WHOLE"));
    assert_eq!(deferred.attributes.integer(attribute::DELIVERY_ERROR_CODE), Some(451));
    assert_eq!(deferred.attributes.boolean(attribute::IS_DELIVERY_PERMANENT_ERROR), Some(false));
    assert_eq!(failed.attributes.boolean(attribute::IS_DELIVERY_PERMANENT_ERROR), Some(true));
    assert_eq!(
        failed.attributes.get(attribute::DELIVERY_ERROR),
        Some(&AttributeValue::Text("550 5.1.1 no such user".into()))
    );
    assert_eq!(ran.script.attempts.lock().expect("no panic").len(), 1, "one attempt for all recipients");
    assert_eq!(ran.begun[0].integer(attribute::AT_MOST_EXECUTIONS), Some(1), "counted before contact");
}

#[tokio::test]
async fn at_most_promotes_without_contact_and_leaves_what_the_last_attempt_said() {
    let mut mail = mail("<>", &["r1@x.example"]);
    for pass in 1..=2 {
        let ran = seed(mail).await;
        assert_eq!(picture(&ran.ends), ["Deferred WHOLE r1 -> temporary"]);
        mail = ran.ends.into_iter().next().expect("one").mail;
        assert_eq!(mail.passes(), pass);
        mail.state = "relay".into();
    }
    let ran = seed(mail).await;
    assert_eq!(picture(&ran.ends), ["Promoted WHOLE r1 -> permanent"]);
    assert!(ran.script.attempts.lock().expect("no panic").is_empty());
    let promoted = &ran.ends[0].mail;
    assert_eq!((promoted.state.as_str(), promoted.passes()), ("relay", 2));
    assert_eq!(promoted.attributes.boolean(attribute::IS_DELIVERY_PERMANENT_ERROR), Some(false));
}

#[tokio::test]
async fn attempts_exhausted_promotes_at_once_what_the_last_attempt_deferred() {
    let config = read(EXHAUSTED).expect("valid");
    let mut mail = mail("<>", &["r1@x.example", "f1@x.example"]);
    mail.attributes.set(attribute::AT_MOST_EXECUTIONS, AttributeValue::Integer(1));
    let ran = run(config, mail).await;
    assert_eq!(picture(&ran.ends), ["Promoted WHOLE r1 -> permanent", "Failed NEW0 f1 -> permanent"]);
}

#[tokio::test]
async fn trouble_of_our_own_and_a_stop_leave_the_mail_as_it_came() {
    for (local, picture_of, verdict) in [
        ("t", "Error WHOLE t,d -> stay Some(\"no DNS server answered anything\")", Verdict::Error),
        ("s", "Left WHOLE s,d -> stay None", Verdict::Left),
    ] {
        let mut before = mail("<>", &[&format!("{local}@x.example"), "d@x.example"]);
        before.attributes.set(attribute::DELIVERY_ERROR, AttributeValue::Text("earlier".into()));
        before.error = Some("earlier".into());
        let ran = seed(before.clone()).await;
        assert_eq!(picture(&ran.ends), [picture_of]);
        assert_eq!((&ran.ends[0].mail, ran.ends[0].verdict), (&before, verdict));
        assert_eq!(ran.ends[0].uncounted.len(), if local == "t" { 2 } else { 0 });
    }
}

/// An attempt that tells of the first recipient, leaves the second, and forgets the others.
struct Forgetful;

#[async_trait]
impl Deliver for Forgetful {
    async fn attempt(&self, request: Request, _: &dyn Checkpoint) -> Attempted {
        let [told, left] = [0, 1].map(|at| vec![answer(&request.recipients[at])]);
        Attempted::Partly(told, left, Uncounted::Trouble("no DNS server answered anything".into()))
    }
}

#[tokio::test]
async fn of_whom_an_attempt_says_nothing_is_deferred_and_not_lost() {
    let pipeline = Pipeline::new(read(SEED).expect("valid"), |_| Ok(Arc::new(Forgetful))).expect("a pipeline");
    let (notes, key) = (Notes::default(), || MailKey::parse("NEW").expect("a key"));
    let whole = mail("<>", &["d1@x.example", "left@x.example", "forgotten@x.example"]);
    let ends = pipeline.run(whole, &notes, DateTime::UNIX_EPOCH, &key).await;
    assert_eq!(
        picture(&ends),
        [
            "Error WHOLE left -> stay Some(\"no DNS server answered anything\")",
            "Delivered WHOLE d1 -> delivered",
            "Deferred NEW forgotten -> temporary"
        ]
    );
}

#[tokio::test]
async fn what_a_dead_process_recorded_is_filed_without_contact() {
    let mut mail = mail("<>", &["d1@x.example", "f1@x.example", "r1@x.example"]);
    mail.recorded = mail.envelope.recipients[..2].iter().map(answer).collect();
    mail.attributes.set(attribute::AT_MOST_EXECUTIONS, AttributeValue::Integer(1));
    let ran = seed(mail.clone()).await;
    assert_eq!(
        picture(&ran.ends),
        ["Delivered WHOLE d1 -> delivered", "Failed NEW0 f1 -> permanent", "Deferred WHOLE r1 -> temporary"]
    );
    assert_eq!(*ran.script.tried.lock().expect("no panic"), ["r1@x.example"]);
    assert_eq!((ran.ends[1].mail.passes(), ran.ends[2].mail.passes()), (1, 2));
    assert!(ran.ends.iter().all(|one| one.mail.recorded.is_empty()));

    mail.attributes.set(attribute::AT_MOST_EXECUTIONS, AttributeValue::Integer(2));
    let ran = seed(mail).await;
    assert_eq!(
        picture(&ran.ends),
        ["Delivered WHOLE d1 -> delivered", "Failed WHOLE f1 -> permanent", "Promoted NEW0 r1 -> permanent"]
    );
}

#[tokio::test]
async fn an_unknown_state_goes_to_processor_error_which_always_exists() {
    let mut lost = mail("<>", &["d1@x.example"]);
    lost.state = "no-such".into();
    let ran = seed(lost).await;
    assert_eq!(picture(&ran.ends), ["Error WHOLE d1 -> error"]);
    let cause = "MailProcessor 'no-such' could not be found. Processing to 'error' instead";
    assert_eq!(ran.ends[0].mail.error.as_deref(), Some(cause));
    assert_eq!(ran.ends[0].mail.state, "error");
    assert!(ran.ends[0].mail.attributes.get(attribute::MAILET_ERROR).is_some());
}

#[tokio::test]
async fn pass_through_sets_a_copy_aside_that_counts_for_nobody() {
    let config = "
relay:
  - {match: RecipientIs=d1@x.example, mailet: ToRepository, repositoryPath: kept/copies, passThrough: true}
  - {match: All, mailet: RemoteDelivery, bounceProcessor: rde}
rde: [{mailet: ToRepository, repositoryPath: var/rest}]
";
    let ran = run(read(config).expect("valid"), mail("<>", &["d1@x.example", "r1@x.example"])).await;
    assert_eq!(
        picture(&ran.ends),
        ["Copy NEW0 d1 -> copies", "Delivered WHOLE d1 -> delivered", "Deferred WHOLE r1 -> rest"]
    );
}

#[tokio::test]
async fn attributes_errors_and_headers_are_set_on_the_way() {
    let config = "
relay:
  - {mailet: SetMailAttribute, color: blue, size: small}
  - {mailet: RemoveMailAttribute, name: 'size, other'}
  - {mailet: AddHeader, name: X-Relay, value: one}
  - {mailet: AddHeader, name: X-Relay, value: one}
  - {mailet: SetErrorMessage, errorMessage: held}
  - {notmatch: SenderIsNull, mailet: 'Null'}
  - {mailet: ToProcessor, processor: rest, notice: back later}
rest: [{mailet: ToRepository, repositoryPath: sqlite://var/held}]
";
    let ran = run(read(config).expect("valid"), mail("<>", &["a@x.example"])).await;
    assert_eq!(picture(&ran.ends), ["Deferred WHOLE a -> held"]);
    let held = &ran.ends[0].mail;
    assert_eq!(held.attributes.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["color"]);
    assert_eq!(held.header_prefix, "X-Relay: one\r\n");
    assert_eq!((held.error.as_deref(), held.state.as_str()), (Some("held\r\nback later"), "rest"));
    let ran = run(read(config).expect("valid"), mail("s@x.example", &["a@x.example"])).await;
    assert_eq!(picture(&ran.ends), ["Failed WHOLE a -> dropped"]);
}

#[tokio::test]
async fn a_reverse_path_is_replaced_for_what_goes_on_and_the_null_one_never() {
    let config = "
relay:
  - {match: SenderDomainIs=web1, mailet: SetReversePath, value: relay@x.example}
  - {mailet: SetReversePath, value: <two@x.example>}
  - {match: SenderIs=two@x.example, mailet: RemoteDelivery, bounceProcessor: rest}
  - {mailet: ToRepository, repositoryPath: var/null}
rest: [{mailet: ToRepository, repositoryPath: var/rest}]
";
    for (sender, sent, accepted, place) in [
        ("root@web1", "two@x.example", Some("root@web1"), "Deferred WHOLE r -> rest"),
        ("two@x.example", "two@x.example", None, "Deferred WHOLE r -> rest"),
        ("<>", "<>", None, "Deferred WHOLE r -> null"),
    ] {
        let ran = run(read(config).expect("valid"), mail(sender, &["r@x.example"])).await;
        assert_eq!(picture(&ran.ends), [place], "{sender}");
        let rested = &ran.ends[0].mail;
        assert_eq!(rested.envelope.reverse_path.to_string(), sent, "{sender}");
        let kept = rested.envelope.dsn.return_path.as_ref().map(ToString::to_string);
        assert_eq!(kept.as_deref(), accepted, "{sender}");
    }
}

#[tokio::test]
async fn a_mailet_that_fails_hands_its_mail_where_the_rule_says() {
    for (on_exception, expected) in [
        ("", "Error WHOLE d1 -> set-aside"),
        (", onMailetException: error", "Error WHOLE d1 -> set-aside"),
        (", onMailetException: ignore", "Delivered WHOLE d1 -> delivered"),
        (", onMailetException: propagate", "Error WHOLE d1 -> error"),
        (", onMailetException: other", "Deferred WHOLE d1 -> other"),
        (", onMatchException: nomatch", "Error WHOLE d1 -> set-aside"),
        (", headers: false", "Delivered WHOLE d1 -> delivered"),
    ] {
        let text = format!(
            "relay: [{{mailet: LogMessage{on_exception}}}, {{mailet: RemoteDelivery, bounceProcessor: other}}]\n\
             other: [{{mailet: ToRepository, repositoryPath: other}}]\n\
             error: [{{mailet: ToRepository, repositoryPath: set-aside}}]\n"
        );
        let pipeline = pipeline(read(&text).expect("valid"), &Arc::default());
        let new_key = || MailKey::parse("NEW").expect("a key");
        let ends =
            pipeline.run(mail("s@x.example", &["d1@x.example"]), &Unreadable, DateTime::UNIX_EPOCH, &new_key).await;
        assert_eq!(picture(&ends), [expected], "{on_exception}");
        if !expected.starts_with("Delivered") {
            let cause = "LogMessage cannot read the message: the disk is gone";
            assert_eq!(ends[0].mail.error.as_deref(), Some(cause));
            let attribute = ends[0].mail.attributes.get(attribute::MAILET_ERROR);
            assert_eq!(attribute, Some(&AttributeValue::Text(cause.to_owned())));
        }
    }
}

#[tokio::test]
async fn metrics_mailets_count_by_name() {
    let text = "relay: [{mailet: MetricsMailet, metricName: in}, {match: RecipientIs=d1@x.example, mailet: MetricsMailet, metricName: d1}, {mailet: LogMessage, passThrough: false}]";
    let script = Arc::new(Script::default());
    let pipeline = pipeline(read(text).expect("valid"), &script);
    let new_key = || MailKey::parse("NEW").expect("a key");
    for recipient in ["d1@x.example", "d2@x.example"] {
        let ends = pipeline.run(mail("<>", &[recipient]), &Notes::default(), DateTime::UNIX_EPOCH, &new_key).await;
        assert_eq!(ends[0].end, End::Dropped, "LogMessage without passThrough ends it");
    }
    assert_eq!(pipeline.metrics(), BTreeMap::from([("d1", 1), ("in", 2)]));
}

#[test]
fn every_mistake_has_its_line_and_says_what_would_be_right() {
    let rule = |text: &str| format!("p:\n  - {{{text}}}\n  - {{mailet: 'Null'}}\n");
    let delivery = |text: &str| {
        rule(&format!("match: AtMost=2, mailet: RemoteDelivery, bounceProcessor: p2, {text}"))
            + "p2: [{mailet: 'Null'}]\n"
    };
    for (text, expected) in [
        (rule("match: AtMots=5, mailet: 'Null'"), "f:2:13: unknown matcher 'AtMots': did you mean 'AtMost'?"),
        (rule("match: AtMost=0, mailet: 'Null'"), "f:2:13: Expecting condition to be a strictly positive integer. Got 0"),
        (rule("mailet: RemoteDelivry"), "f:2:14: unknown mailet 'RemoteDelivry': did you mean 'RemoteDelivery'?"),
        (rule("match: All, notmatch: All, mailet: 'Null'"), "f:2:28: Please configure only match or nomatch per mailet"),
        (rule("mailet: ToRepository"), "f:2:5: key 'repositoryPath' is missing"),
        (rule("mailet: ToRepository, repositoryPath: sqlite://spool/"), "f:2:44: 'spool' is what the spool is called: name the repository otherwise, such as 'var/mail/spool'"),
        (rule("mailet: ToRepository, repositoryPath: file://a/b"), "f:2:44: no store is called 'file': 'stores' has cassandra, sqlite"),
        (rule("mailet: ToRepository, repositoryPath: a/../b"), "f:2:44: \"a/../b\" is not a repository"),
        (rule("mailet: ToRepository, repositoryPaht: a/b"), "f:2:28: unknown key 'repositoryPaht': did you mean 'repositoryPath'?"),
        (rule("mailet: ToRepository, repositoryPath: a/b, passThrough: yes"), "f:2:62: true or false is expected here"),
        (rule("mailet: ToProcessor, processor: q"), "f:2:38: there is no processor 'q': did you mean 'p'?"),
        (rule("mailet: RemoteDelivery"), "f:2:5: key 'bounceProcessor' is missing"),
        (rule("match: AttemptsExhausted=3, mailet: 'Null'"), "f:2:13: AttemptsExhausted never matches: no AtMost counts 'AT_MOST_EXECUTIONS'"),
        (rule("match: {Adn: [All]}, mailet: 'Null'"), "f:2:14: unknown matcher 'Adn'"),
        (rule("match: {And: All}, mailet: 'Null'"), "f:2:19: And takes a list of matchers"),
        (rule("mailet: LogMessage, body: true"), "f:2:32: message bodies are never logged"),
        (rule("mailet: MetricsMailet"), "f:2:5: key 'metricName' is missing"),
        (rule("mailet: 'Null', onMailetException: ignroe"), "there is no processor 'ignroe'"),
        (rule("mailet: 'Null', onMatchException: noamtch"), "known are also the words nomatch, matchall, propagate"),
        (
            "p: [{mailet: 'Null', onMailetException: ignore}]".into(),
            "f:1:1: processor 'p' has an open end",
        ),
        (
            "p: [{mailet: LogMessage, onMailetException: q}, {mailet: 'Null'}]\nq: [{mailet: ToProcessor, processor: p}]".into(),
            "f:2:38: a circle of processors: p -> q -> p",
        ),
        (delivery("maxRetries: 3"), "maxRetries can only be 0, not the number 3: a mail is tried once per pass; a job with a schedule"),
        (delivery("delayTime: 5s"), "delayTime must be empty"),
        (delivery("deliveryThreads: 0"), "a whole number from 1 to 10000 is expected here, not the number 0"),
        (delivery("timeout: abc"), "a duration such as 30s"),
        (delivery("gateway: 'gw:0'"), "a gateway such as gw.example.net:25"),
        (delivery("gatewayPort: 25"), "gatewayPort needs a 'gateway'"),
        (delivery("gateway: gw, gatewayUsername: u"), "belong together"),
        (delivery("gateway: gw, gatewayPassword: p"), "belong together"),
        (delivery("startTLS: maybe"), "false, true, required or verify is expected here"),
        (delivery("outgoing: a, outgoingQueue: b"), "'outgoing' says the same"),
        (delivery("caFile: no-such.pem"), "no-such.pem cannot be read"),
        (delivery("caFile: Cargo.toml"), "there is no certificate in Cargo.toml"),
        (delivery("certificate: Cargo.toml, key: Cargo.toml"), "there is no private key in Cargo.toml"),
        (delivery("heloName: 'a b'"), "the domain \"a b\" is not valid"),
        (delivery("bind: here"), "an IP address of this machine"),
        ("p: [{match: AtMost=3, mailet: 'Null'}]".into(), "f:1:1: processor 'p' has an open end"),
        ("p: [{mailet: ToRepository, repositoryPath: a/b, passThrough: true}]".into(), "f:1:1: processor 'p' has an open end"),
        ("p: []".into(), "f:1:1: processor 'p' has an open end"),
        ("p: {}".into(), "f:1:4: a list of rules"),
        ("p: [{mailet: SetReversePath}, {mailet: 'Null'}]".into(), "key 'value' is missing"),
        ("p: [{mailet: SetReversePath, value: <>}, {mailet: 'Null'}]".into(), "f:1:37: an address is expected here: the null"),
        ("p: [{mailet: SetReversePath, value: root}, {mailet: 'Null'}]".into(), "f:1:37: an address is expected here, not 'root'"),
        (
            "p: [{match: 'RecipientIsRegex=a(?!b).*', mailet: 'Null'}, {mailet: 'Null'}]".into(),
            "f:1:13: at character 2 of the regular expression: look-around",
        ),
        ("- p".into(), "f:1:1: 'processors' is expected here"),
        ("ghost: [{mailet: 'Null'}]".into(), "f:1:1: the name 'ghost' is reserved"),
        ("p: [{mailet: ToProcessor, processor: p}]".into(), "f:1:38: a circle of processors: p -> p"),
        (
            "p: [{mailet: RemoteDelivery, bounceProcessor: q}]\nq: [{mailet: ToProcessor, processor: p}]".into(),
            "f:2:38: a circle of processors: p -> q -> p",
        ),
        (
            "p: [{mailet: RemoteDelivery, bounceProcessor: q}]\nq: [{mailet: RemoteDelivery, bounceProcessor: r}]\nr: [{mailet: 'Null'}]".into(),
            "f:1:47: 'q' leads to another RemoteDelivery",
        ),
    ] {
        let told = read(&text).expect_err(&text);
        assert!(told.iter().any(|line| line.contains(expected)), "{text}\n{expected}\n{told:#?}");
    }
}

#[test]
fn a_password_file_that_cannot_be_read_is_one_mistake() {
    let parameters = "gateway: gw, gatewayUsername: u, gatewayPasswordFile: no-such-file";
    let told = read(&format!("p: [{{mailet: RemoteDelivery, bounceProcessor: error, {parameters}}}]")).expect_err("no");
    assert!(matches!(&told[..], [only] if only.contains("no-such-file cannot be read")), "{told:#?}");
}

#[test]
fn what_james_accepts_and_we_mean_too_is_accepted() {
    let parameters = "gateway: 'gw1.example.net:25, [2001:db8::1]:2525', gatewayPort: 587, gatewayUsername: u, \
        gatewayPassword: secret, maxRetries: 0, delayTime: '', timeout: 2500, connectiontimeout: 2s, startTLS: verify, \
        maxDnsProblemRetries: 2, outgoingQueue: slow, sendpartial: false, loadBalancing: true, bind: 127.0.0.2";
    let text = format!("p: [{{mailet: RemoteDelivery, bounceProcessor: error, {parameters}}}]");
    let config = read(&text).expect("valid");
    let deliveries = config.deliveries();
    let delivery = deliveries[0];
    assert_eq!(delivery.gateways.len(), 2);
    assert_eq!((delivery.gateways[1].host.as_str(), delivery.gateways[1].port), ("2001:db8::1", Some(2525)));
    assert_eq!((delivery.outgoing.as_str(), delivery.send_partial), ("slow", false));
    assert_eq!(delivery.timeout, Some(std::time::Duration::from_millis(2500)));
    assert!(!format!("{config:?}").contains("secret"));
}

#[test]
fn a_mail_is_used_up_where_its_counter_lets_it_through_to_no_delivery() {
    let counted = |name: &str, passes| {
        let mut attributes = Attributes::default();
        attributes.set(name, AttributeValue::Integer(passes));
        attributes
    };
    let config = read(SEED).expect("valid");
    assert!(config.is_used_up("relay", &counted("AT_MOST_EXECUTIONS", 2)));
    assert!(!config.is_used_up("relay", &counted("AT_MOST_EXECUTIONS", 1)));
    assert!(!config.is_used_up("rde", &counted("AT_MOST_EXECUTIONS", 9)), "it leads to no delivery");
    assert_eq!(config.counters(), ["AT_MOST_EXECUTIONS", "redeliver.dns-problems"]);
    let named = read(&SEED.replace("AtMost=2", "AtMost=tries:2")).expect("valid");
    assert!(named.is_used_up("relay", &counted("tries", 2)));
    assert!(!named.is_used_up("relay", &counted("AT_MOST_EXECUTIONS", 2)));
    assert_eq!(named.counters(), ["AT_MOST_EXECUTIONS", "redeliver.dns-problems", "tries"]);
}

#[test]
fn the_limit_of_passes_is_found_where_a_processor_leads() {
    let config = read(SEED).expect("valid");
    assert_eq!((config.attempts("relay"), config.attempts("rde")), (Some(2), None));
    let elsewhere = SEED.replace(
        "relay:",
        "first: [{match: AtMost=5, mailet: ToProcessor, processor: relay}, {mailet: 'Null'}]\nrelay:",
    );
    let elsewhere = read(&elsewhere.replace("AtMost=2", "All")).expect("valid");
    assert_eq!((elsewhere.attempts("first"), elsewhere.attempts("relay")), (Some(5), None));
    let exhausted = read(&EXHAUSTED.replace("AtMost=2", "AtMost=9")).expect("valid");
    assert_eq!(exhausted.attempts("relay"), Some(2));
    let temporary = RepositoryPath::parse("var/mail/error/remote-delivery/temporary").expect("a path");
    assert!(!config.circles_without_limit(&temporary, "relay"));
    let unlimited = read(&SEED.replace("AtMost=2", "All")).expect("valid");
    assert!(unlimited.circles_without_limit(&temporary, "relay"));
}

/// A rule of processor `p{n}`, that may lead only to later processors.
fn any_rule(n: usize, last: usize) -> impl Strategy<Value = String> {
    let matcher = prop_oneof![
        Just("All".to_owned()),
        Just("AtMost=1".to_owned()),
        Just("AtMost=other:2".to_owned()),
        Just("AttemptsExhausted=1".to_owned()),
        Just("IsRemoteDeliveryTemporaryError".to_owned()),
        Just("'RecipientIs=d1@x.example,r2@x.example'".to_owned()),
        Just("{Or: [SenderIsNull, {Not: 'RecipientIs=f1@x.example'}]}".to_owned()),
        Just("{Xor: [All, {And: ['RecipientDomainIs=x.example', AtMost=3]}]}".to_owned()),
    ];
    let mailet = (0..7_usize, n + 1..=last.max(n + 1), any::<bool>()).prop_map(move |(kind, to, flag)| match kind {
        0 | 1 if to <= last => format!("mailet: RemoteDelivery, bounceProcessor: p{to}"),
        2 if to <= last => format!("mailet: ToProcessor, processor: p{to}"),
        3 => "mailet: 'Null'".to_owned(),
        4 => "mailet: SetErrorMessage, errorMessage: x".to_owned(),
        5 => "mailet: ToProcessor, processor: error".to_owned(),
        _ => format!("mailet: ToRepository, repositoryPath: r/{to}, passThrough: {flag}"),
    });
    (matcher, mailet, any::<bool>()).prop_map(|(matcher, mailet, not)| {
        format!("  - {{{}: {matcher}, {mailet}}}\n", if not { "notmatch" } else { "match" })
    })
}

fn any_config() -> impl Strategy<Value = String> {
    let processor = |n: usize| {
        proptest::collection::vec(any_rule(n, 3), 0..4).prop_map(move |rules| {
            format!("p{n}:\n{}  - {{mailet: ToRepository, repositoryPath: r/end}}\n", rules.concat())
        })
    };
    (processor(0), processor(1), processor(2), processor(3)).prop_map(|(a, b, c, d)| format!("{a}{b}{c}{d}"))
}

fn any_mail() -> impl Strategy<Value = Mail> {
    let locals = proptest::sample::subsequence(vec!["d1", "d2", "f1", "f2", "r1", "r2", "t1", "s1"], 1..=8);
    (locals, any::<bool>(), any::<[bool; 8]>(), 0..3_i64).prop_map(|(locals, null, on_record, passes)| {
        let addresses: Vec<_> = locals.iter().map(|local| format!("{local}@x.example")).collect();
        let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
        let mut mail = mail(if null { "<>" } else { "s@x.example" }, &addresses);
        mail.state = "p0".into();
        mail.attributes.set(attribute::AT_MOST_EXECUTIONS, AttributeValue::Integer(passes));
        let recorded = mail.envelope.recipients.iter().zip(on_record).filter(|(_, recorded)| *recorded);
        mail.recorded =
            recorded.map(|(recipient, _)| answer(recipient)).filter(|one| one.outcome != Outcome::Deferred).collect();
        mail
    })
}

proptest! {
    #[test]
    fn no_configuration_that_passes_loses_or_doubles_a_recipient((text, mail) in (any_config(), any_mail())) {
        let Ok(config) = read(&text) else { return Ok(()) };
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let ran = runtime.block_on(run(config, mail.clone()));
        let mut counted: BTreeMap<String, u32> = BTreeMap::new();
        for end in ran.ends.iter().filter(|end| end.verdict != Verdict::Copy) {
            for recipient in &end.mail.envelope.recipients {
                *counted.entry(recipient.to_string()).or_default() += 1;
            }
        }
        let expected: BTreeMap<_, _> = mail.envelope.recipients.iter().map(|to| (to.to_string(), 1)).collect();
        prop_assert_eq!(counted, expected);

        let mut tried = ran.script.tried.lock().expect("no panic").clone();
        prop_assert!(mail.recorded.iter().all(|one| !tried.contains(&one.recipient.to_string())), "recorded, yet tried");
        tried.sort();
        let all = tried.len();
        tried.dedup();
        prop_assert_eq!(tried.len(), all, "somebody was tried twice");

        let rests = |end: &&Disposition| matches!(end.end, End::Repository(_) | End::Stay(_));
        let mut keys: Vec<_> = ran.ends.iter().filter(rests).map(|end| end.mail.key.clone()).collect();
        let resting = keys.len();
        keys.sort();
        keys.dedup();
        prop_assert_eq!(keys.len(), resting, "two parts have one key");
    }
}
