//! Attempts over real sockets against a small peer that says what a test tells it to.

mod cancelled;
mod tls;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use crate::clock::Clock;
use crate::mail::{
    Address, Attributes, DialogueEntry, DsnRequest, HeaderScan, MailKey, Outcome, Planned, Recorded, ReversePath, Stage,
};
use crate::stop::{Cancellation, Stop};

use super::{
    Attempted, Checkpoint, Config, Content, Credentials, Delivery, DnsConfig, Gateway, MemoryContent, Network,
    NotBegun, Request, Secret, StartTls, Uncounted,
};

/// What a peer answers to a line: nothing keeps silent, an empty text closes.
type Script = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// A peer on a port of its own. It keeps what it was told, line by line; content is one
/// entry behind `DATA`.
struct Peer {
    port: u16,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Peer {
    async fn start(script: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (script, log): (Script, _) = (Arc::new(script), Arc::clone(&heard));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                log.lock().expect("lock").push("CONNECT".to_owned());
                tokio::spawn(converse(stream, Arc::clone(&script), Arc::clone(&log)));
            }
        });
        Self { port, heard }
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().expect("lock").clone()
    }

    fn count(&self, line: &str) -> usize {
        self.heard().iter().filter(|heard| heard.starts_with(line)).count()
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

async fn converse(stream: impl Stream, script: Script, log: Arc<Mutex<Vec<String>>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = "BANNER".to_owned();
    loop {
        let Some(reply) = script(&line) else { std::future::pending().await };
        if reply.is_empty() {
            return Ok(());
        }
        stream.write_all(format!("{reply}\r\n").as_bytes()).await?;
        line = if reply.starts_with("354") { content(&mut stream).await? } else { read_line(&mut stream).await? };
        log.lock().expect("lock").push(line.clone());
    }
}

async fn read_line(stream: &mut BufReader<impl Stream>) -> std::io::Result<String> {
    let mut line = Vec::new();
    if stream.read_until(b'\n', &mut line).await? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

async fn content(stream: &mut BufReader<impl Stream>) -> std::io::Result<String> {
    let mut content = Vec::new();
    while !content.ends_with(b"\r\n.\r\n") && content != b".\r\n" {
        if stream.read_until(b'\n', &mut content).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(format!("CONTENT {}", String::from_utf8_lossy(&content)))
}

/// Takes everything.
#[expect(clippy::unnecessary_wraps, reason = "a script may also keep silent")]
fn agreeable(line: &str) -> Option<String> {
    Some(
        match line.split([' ', ':']).next().unwrap_or_default() {
            "BANNER" => "220 peer ESMTP",
            "EHLO" => "250-peer\r\n250 SIZE 1000000",
            "DATA" => "354 go",
            "QUIT" => "221 bye",
            _ => "250 2.0.0 ok",
        }
        .to_owned(),
    )
}

fn pipelining(line: &str) -> Option<String> {
    if line.starts_with("EHLO") { Some("250-peer\r\n250 pipelining".to_owned()) } else { agreeable(line) }
}

#[derive(Default)]
struct Record {
    message: Bytes,
    begun: Mutex<u32>,
    recorded: Mutex<Vec<Recorded>>,
    dialogue: Mutex<Vec<String>>,
    run: Cancellation,
}

#[async_trait]
impl Checkpoint for Record {
    async fn begin(&self, _: &Attributes, _: &[Planned]) -> Result<(), NotBegun> {
        *self.begun.lock().expect("lock") += 1;
        Ok(())
    }

    async fn record(&self, outcomes: &[Recorded], dialogue: &[DialogueEntry]) {
        self.recorded.lock().expect("lock").extend_from_slice(outcomes);
        self.dialogue.lock().expect("lock").extend(dialogue.iter().map(|entry| entry.text.clone()));
    }

    fn run(&self) -> Cancellation {
        self.run.clone()
    }

    fn content(&self) -> Arc<dyn Content> {
        Arc::new(MemoryContent(self.message.clone()))
    }
}

fn network(stop: Stop) -> Arc<Network> {
    let dns = DnsConfig {
        servers: vec!["127.0.0.1:9".parse().expect("address")],
        timeout: Some(Duration::from_millis(200)),
        attempts: Some(1),
        ..DnsConfig::default()
    };
    Network::new(Clock::system(), &dns, "me.example".into(), Vec::new(), stop, None)
}

fn delivery(ports: &[u16], change: impl FnOnce(&mut Config)) -> Delivery {
    let gateways = ports.iter().map(|&port| Gateway { host: "127.0.0.1".into(), port: Some(port) }).collect();
    let mut config = Config { gateways, timeout: Some(Duration::from_secs(2)), ..Config::default() };
    change(&mut config);
    Delivery::new(config, network(Stop::default())).expect("a delivery")
}

fn request(message: &str, recipients: &[&str]) -> Request {
    let mut scan = HeaderScan::default();
    scan.push(message.as_bytes());
    Request {
        key: MailKey::parse("K1").expect("a key"),
        reverse_path: ReversePath::parse("from@me.example").expect("an address"),
        recipients: recipients.iter().map(|recipient| Address::parse(recipient).expect("an address")).collect(),
        smtputf8: false,
        require_tls: false,
        prefer_require_tls: false,
        dsn: DsnRequest::default(),
        facts: scan.finish().expect("facts"),
        header_prefix: "X-Prefix: 1\r\n".into(),
        attributes: Attributes::default(),
        signatories: Vec::new(),
        dns_problems: 0,
    }
}

async fn attempt(delivery: &Delivery, recipients: &[&str]) -> (Vec<Recorded>, Record) {
    let message = "Subject: x\r\n\r\n.dot\r\nno end";
    let record = Record { message: message.into(), ..Record::default() };
    match delivery.attempt(request(message, recipients), &record).await {
        Attempted::Done(done) => {
            let mut recorded = record.recorded.lock().expect("lock").clone();
            recorded.sort_by_key(|recorded| recipients.iter().position(|r| *r == recorded.recipient.to_string()));
            assert_eq!(recorded, done, "what was recorded is what is returned");
            assert_eq!(*record.begun.lock().expect("lock"), 1);
            (done, record)
        }
        other => panic!("{other:?}"),
    }
}

fn outcomes(recorded: &[Recorded]) -> Vec<(Outcome, Option<u16>, Stage)> {
    recorded.iter().map(|recorded| (recorded.outcome, recorded.code, recorded.stage)).collect()
}

#[tokio::test]
async fn a_mail_is_delivered_once_and_octet_for_octet() {
    let peer = Peer::start(agreeable).await;
    let delivery = delivery(&[peer.port], |_| {});
    let (done, record) = attempt(&delivery, &["a@x.example", "b@y.example"]).await;
    assert_eq!(outcomes(&done), [(Outcome::Delivered, Some(250), Stage::EndOfData); 2]);
    delivery.close().await;
    let size = "Subject: x\r\n\r\n.dot\r\nno end".len() + "X-Prefix: 1\r\n".len();
    assert_eq!(
        peer.heard(),
        [
            "CONNECT",
            "EHLO me.example",
            &format!("MAIL FROM:<from@me.example> SIZE={size}"),
            "RCPT TO:<a@x.example>",
            "RCPT TO:<b@y.example>",
            "DATA",
            "CONTENT X-Prefix: 1\r\nSubject: x\r\n\r\n..dot\r\nno end\r\n.\r\n",
            "QUIT",
        ]
    );
    assert_eq!(done[0].notes, ["sent in clear: STARTTLS is not offered"]);
    let dialogue = record.dialogue.lock().expect("lock").join("\n");
    assert!(dialogue.contains("220 peer ESMTP") && dialogue.contains("[message content, 39 octets]"), "{dialogue}");
}

#[tokio::test]
async fn each_recipient_has_its_own_outcome_with_and_without_pipelining() {
    for base in [agreeable as fn(&str) -> Option<String>, pipelining] {
        let peer = Peer::start(move |line| match line {
            "RCPT TO:<refused@x.example>" => Some("550-5.1.1 no\r\n550 5.1.1 such user".to_owned()),
            "RCPT TO:<later@x.example>" => Some("450 4.2.0 greylisted".to_owned()),
            "RCPT TO:<old@x.example>" => Some("552 mailbox full".to_owned()),
            line => base(line),
        })
        .await;
        let delivery = delivery(&[peer.port], |_| {});
        let recipients = ["refused@x.example", "ok@x.example", "later@x.example", "old@x.example"];
        let (done, _) = attempt(&delivery, &recipients).await;
        assert_eq!(
            outcomes(&done),
            [
                (Outcome::Failed, Some(550), Stage::Rcpt),
                (Outcome::Delivered, Some(250), Stage::EndOfData),
                (Outcome::Deferred, Some(450), Stage::Rcpt),
                (Outcome::Deferred, Some(552), Stage::Rcpt),
            ]
        );
        assert_eq!(done[0].reply.as_deref(), Some("550-5.1.1 no\n550 5.1.1 such user"));
        assert_eq!((peer.count("DATA"), peer.count("CONTENT")), (1, 1));
    }
}

#[tokio::test]
async fn when_all_are_refused_data_said_ahead_gets_a_lone_dot() {
    let peer =
        Peer::start(|line| if line.starts_with("RCPT") { Some("550 no".into()) } else { pipelining(line) }).await;
    let delivery = delivery(&[peer.port], |_| {});
    let (done, _) = attempt(&delivery, &["a@x.example", "b@x.example"]).await;
    assert_eq!(outcomes(&done), [(Outcome::Failed, Some(550), Stage::Rcpt); 2]);
    assert_eq!(peer.heard().last().map(String::as_str), Some("CONTENT .\r\n"));
}

#[tokio::test]
async fn a_session_that_ends_behind_a_lone_dot_leaves_nobody_without_an_outcome() {
    let peer = Peer::start(|line| match line {
        "RCPT TO:<refused@x.example>" => Some("550 no".to_owned()),
        "CONTENT .\r\n" => Some(String::new()),
        line => pipelining(line),
    })
    .await;
    let delivery = delivery(&[peer.port], |config| config.max_recipients_per_transaction = 1);
    let (done, _) = attempt(&delivery, &["refused@x.example", "ok@x.example"]).await;
    assert_eq!((done[0].outcome, done[1].outcome), (Outcome::Failed, Outcome::Delivered));
    assert_eq!(peer.count("CONNECT"), 2);
}

#[tokio::test]
async fn who_was_deferred_by_one_host_is_asked_once_at_each() {
    let greylisting = |line: &str| {
        if line.starts_with("RCPT TO:<later") { Some("450 later".to_owned()) } else { agreeable(line) }
    };
    let (first, second) = (Peer::start(greylisting).await, Peer::start(greylisting).await);
    let delivery = delivery(&[first.port, second.port], |_| {});
    let (done, _) = attempt(&delivery, &["ok@x.example", "later@x.example"]).await;
    assert_eq!((done[0].outcome, done[1].outcome), (Outcome::Delivered, Outcome::Deferred));
    assert_eq!(done[1].port, Some(second.port), "of two replies the later is recorded");
    assert_eq!((first.count("RCPT TO:<later"), second.count("RCPT TO:<later"), second.count("DATA")), (1, 1, 0));
}

#[tokio::test]
async fn the_next_host_is_tried_after_trouble_with_the_first_and_not_after_a_refusal() {
    for (at, reply, delivered) in [
        ("BANNER", "421 busy", true),
        ("BANNER", "554 no", true),
        ("BANNER", "", true),
        ("BANNER", "banana", true),
        ("EHLO", "421 busy", true),
        ("MAIL", "451 later", true),
        ("MAIL", "", true),
        ("RCPT", "421 bye", true),
        ("RCPT", "450 later", true),
        ("DATA", "451 later", true),
        ("DATA", "250 what", true),
        ("CONTENT", "451 later", true),
        ("MAIL", "550 no", false),
        ("RCPT", "550 no", false),
        ("DATA", "554 no", false),
        ("CONTENT", "554 spam", false),
    ] {
        let first =
            Peer::start(move |line| if line.starts_with(at) { Some(reply.to_owned()) } else { agreeable(line) }).await;
        let second = Peer::start(agreeable).await;
        let delivery = delivery(&[first.port, second.port], |_| {});
        let (done, _) = attempt(&delivery, &["a@x.example"]).await;
        let expected = if delivered { Outcome::Delivered } else { Outcome::Failed };
        assert_eq!(
            (done[0].outcome, second.count("CONTENT")),
            (expected, usize::from(delivered)),
            "{reply:?} to {at}: {done:?}"
        );
    }
}

#[tokio::test]
async fn no_reply_to_the_final_dot_is_in_doubt_and_no_other_host_is_tried() {
    for reply in [Some(""), Some("354 more"), Some("banana"), Some("999 x"), None] {
        let first = Peer::start(
            move |line| {
                if line.starts_with("CONTENT") { reply.map(str::to_owned) } else { agreeable(line) }
            },
        )
        .await;
        let second = Peer::start(agreeable).await;
        let delivery = delivery(&[first.port, second.port], |config| config.timeout = Some(Duration::from_millis(300)));
        let (done, _) = attempt(&delivery, &["a@x.example"]).await;
        assert!(done[0].in_doubt, "{reply:?}: {:?}", done[0].cause);
        assert_eq!((done[0].stage, second.count("CONNECT")), (Stage::EndOfData, 0), "{reply:?}");
    }
}

#[tokio::test]
async fn helo_is_said_where_ehlo_is_not_known() {
    let peer = Peer::start(|line| match line.split(' ').next() {
        Some("EHLO") => Some("502 5.5.2 what".to_owned()),
        Some("HELO") => Some("250 peer".to_owned()),
        _ => agreeable(line),
    })
    .await;
    let delivery = delivery(&[peer.port], |_| {});
    let (done, _) = attempt(&delivery, &["a@x.example"]).await;
    assert_eq!(done[0].outcome, Outcome::Delivered);
    assert!(done[0].notes.contains(&"HELO: EHLO was refused (502)".to_owned()), "{:?}", done[0].notes);
    assert_eq!(peer.heard()[..4], ["CONNECT", "EHLO me.example", "HELO me.example", "MAIL FROM:<from@me.example>"]);
}

#[tokio::test]
async fn a_silent_peer_is_given_up_in_time_and_a_required_tls_never_goes_in_clear() {
    let silent = Peer::start(|_| None).await;
    let delivery_to_silent = delivery(&[silent.port], |config| config.timeout = Some(Duration::from_millis(200)));
    let (done, _) = attempt(&delivery_to_silent, &["a@x.example"]).await;
    assert_eq!(outcomes(&done), [(Outcome::Deferred, None, Stage::Banner)]);

    let clear = Peer::start(agreeable).await;
    let required = delivery(&[clear.port], |config| config.start_tls = StartTls::Required);
    let (done, _) = attempt(&required, &["a@x.example"]).await;
    assert_eq!((outcomes(&done), clear.count("MAIL")), (vec![(Outcome::Deferred, None, Stage::Starttls)], 0));
}

#[tokio::test]
async fn a_session_is_used_again_and_one_that_the_peer_gave_up_costs_nothing() {
    let peer = Peer::start(agreeable).await;
    let reusing = delivery(&[peer.port], |_| {});
    for _ in 0..5 {
        assert_eq!(attempt(&reusing, &["a@x.example"]).await.0[0].outcome, Outcome::Delivered);
    }
    assert_eq!((peer.count("CONNECT"), peer.count("CONTENT")), (1, 5));

    let mails = Arc::new(Mutex::new(0));
    let impatient = Peer::start(move |line| {
        let mut mails = mails.lock().expect("lock");
        *mails += u32::from(line.starts_with("MAIL"));
        if line.starts_with("MAIL") && mails.is_multiple_of(3) { Some("421 enough".into()) } else { agreeable(line) }
    })
    .await;
    let delivery = delivery(&[impatient.port], |_| {});
    for _ in 0..6 {
        assert_eq!(attempt(&delivery, &["a@x.example"]).await.0[0].outcome, Outcome::Delivered);
    }
    assert_eq!(impatient.count("CONTENT"), 6);
}

#[tokio::test]
async fn a_peer_that_takes_two_recipients_gets_a_thousandth_in_the_same_session() {
    for base in [agreeable as fn(&str) -> Option<String>, pipelining] {
        let accepted = Arc::new(Mutex::new(0));
        let peer = Peer::start(move |line| {
            let mut accepted = accepted.lock().expect("lock");
            match line.split([' ', ':']).next() {
                Some("MAIL") => *accepted = 0,
                Some("RCPT") if *accepted == 2 => return Some("452 4.5.3 too many recipients".into()),
                Some("RCPT") => *accepted += 1,
                _ => {}
            }
            base(line)
        })
        .await;
        let delivery = delivery(&[peer.port], |config| config.max_recipients_per_transaction = 3);
        let recipients: Vec<String> = (0..10).map(|n| format!("{n}@x.example")).collect();
        let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
        let (done, _) = attempt(&delivery, &recipients).await;
        assert!(done.iter().all(|recorded| recorded.outcome == Outcome::Delivered), "{done:?}");
        assert_eq!((peer.count("CONNECT"), peer.count("CONTENT")), (1, 5));
    }
}

#[tokio::test]
async fn a_dead_hop_answers_for_its_other_mails() {
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address").port()
    };
    let delivery = delivery(&[port], |_| {});
    let (first, _) = attempt(&delivery, &["a@x.example"]).await;
    let (second, _) = attempt(&delivery, &["a@x.example"]).await;
    let cause = format!("connecting to 127.0.0.1 (127.0.0.1:{port}): connection refused");
    assert_eq!(first[0].cause.as_deref(), Some(cause.as_str()));
    assert_eq!(second[0].cause, Some(format!("127.0.0.1:{port} was found down: {cause}")));
    assert_eq!(outcomes(&second), [(Outcome::Deferred, None, Stage::Connect)]);
}

/// A store that needs a while, and knows how many wait for it.
#[derive(Default)]
struct BusyStore {
    waiting: Mutex<(usize, usize)>,
}

#[async_trait]
impl Checkpoint for BusyStore {
    async fn begin(&self, _: &Attributes, _: &[Planned]) -> Result<(), NotBegun> {
        {
            let mut waiting = self.waiting.lock().expect("lock");
            waiting.0 += 1;
            waiting.1 = waiting.1.max(waiting.0);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.waiting.lock().expect("lock").0 -= 1;
        Ok(())
    }

    async fn record(&self, _: &[Recorded], _: &[DialogueEntry]) {}

    fn content(&self) -> Arc<dyn Content> {
        Arc::new(MemoryContent(Bytes::new()))
    }
}

#[tokio::test]
async fn mails_that_a_dead_hop_answers_for_leave_the_store_to_others() {
    let delivery = delivery(&[1], |config| config.gateways[0].host = "127.99.99.99".into());
    let _ = attempt(&delivery, &["first@x.example"]).await;
    let store = BusyStore::default();
    let others = (0..1000).map(|_| delivery.attempt(request("Subject: x\r\n\r\n", &["a@x.example"]), &store));
    let answered = super::concurrently(others).await;
    assert!(answered.iter().all(|answer| matches!(answer, Attempted::Done(_))));
    let most = store.waiting.lock().expect("lock").1;
    assert!(most <= super::ANSWERED_AT_ONCE, "{most} at once");
}

#[tokio::test]
async fn trouble_of_our_own_is_not_counted() {
    let unbound = delivery(&[25], |config| config.bind = Some([192, 0, 2, 1].into()));
    let record = Record::default();
    let ended = unbound.attempt(request("A: b\r\n", &["a@x.example"]), &record).await;
    assert!(
        matches!(&ended, Attempted::LocalError(recorded, Uncounted::Trouble(cause))
        if recorded.len() == 1 && cause.contains("192.0.2.1")),
        "{ended:?}"
    );

    let config = Config::default();
    let deaf = Delivery::new(config, network(Stop::default())).expect("a delivery");
    let ended = deaf.attempt(request("A: b\r\n", &["a@x.example"]), &record).await;
    assert!(
        matches!(&ended, Attempted::LocalError(_, Uncounted::Trouble(cause)) if cause.starts_with("no name server answers")),
        "{ended:?}"
    );
    assert!(record.recorded.lock().expect("lock").is_empty());
}

#[tokio::test]
async fn a_stop_keeps_what_has_not_begun_and_gives_up_what_has() {
    let stop = Stop::default();
    let peer = Peer::start(|line| if line.starts_with("CONTENT") { None } else { agreeable(line) }).await;
    let config =
        Config { gateways: vec![Gateway { host: "127.0.0.1".into(), port: Some(peer.port) }], ..Config::default() };
    let delivery = Arc::new(Delivery::new(config, network(stop.clone())).expect("a delivery"));
    let under_way = {
        let delivery = Arc::clone(&delivery);
        let record = Record { message: "A: b\r\n".into(), ..Record::default() };
        tokio::spawn(async move { delivery.attempt(request("A: b\r\n", &["a@x.example"]), &record).await })
    };
    while peer.count("CONTENT") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.gentle.cancel();
    let new = delivery.attempt(request("A: b\r\n", &["a@x.example"]), &Record::default()).await;
    assert!(matches!(new, Attempted::Stopped), "{new:?}");
    stop.hard.cancel();
    let ended = under_way.await.expect("no panic");
    assert!(matches!(&ended, Attempted::Done(done) if done[0].in_doubt), "{ended:?}");
}

#[tokio::test]
async fn replies_that_do_not_fit_their_commands_count_for_nobody() {
    for (at, reply) in [("MAIL", "250 ok\r\n550 whose"), ("DATA", "250 what"), ("DATA", "554 no\r\n250 whose")] {
        let peer = Peer::start(move |line| match line.split(' ').next() {
            Some(verb) if verb == at => Some(reply.to_owned()),
            _ if line.starts_with("RCPT TO:<b") => Some("550 no".to_owned()),
            _ => pipelining(line),
        })
        .await;
        let delivery = delivery(&[peer.port], |_| {});
        let (done, _) = attempt(&delivery, &["a@x.example", "b@x.example"]).await;
        for recorded in &done {
            assert_eq!((recorded.outcome, recorded.code), (Outcome::Deferred, None), "{reply:?} to {at}: {recorded:?}");
        }
        assert_eq!(peer.count("CONTENT"), 0);
    }
}

#[tokio::test]
async fn a_reply_in_the_middle_of_the_content_is_the_outcome() {
    let peer = Peer::start(|line| match line {
        "DATA" => Some("354 go\r\n452 4.3.1 disk full".to_owned()),
        line if line.starts_with("CONTENT") => Some(String::new()),
        line => pipelining(line),
    })
    .await;
    let delivery = delivery(&[peer.port], |_| {});
    let (done, _) = attempt(&delivery, &["a@x.example"]).await;
    assert_eq!(outcomes(&done), [(Outcome::Deferred, Some(452), Stage::Data)]);
    assert_eq!(peer.count("DATA"), 1);
}

#[tokio::test]
async fn a_message_that_cannot_be_sent_to_its_end_is_not_ended() {
    let (bare, short) = ("Subject: x\r\n\r\none\n.\ntwo\r\n", "Subject: x\r\n");
    for (message, cause) in [(bare, "CR or LF that is not part of CRLF"), (short, "missing in the store")] {
        let peer = Peer::start(agreeable).await;
        let delivery = delivery(&[peer.port], |_| {});
        let mut request = request("", &["a@x.example"]);
        request.facts.size = 27;
        let record = Record { message: message.into(), ..Record::default() };
        let ended = delivery.attempt(request, &record).await;
        let Attempted::Done(done) = ended else { panic!("{ended:?}") };
        assert_eq!(outcomes(&done), [(Outcome::Deferred, None, Stage::Data)]);
        assert!(done[0].cause.as_deref().is_some_and(|said| said.contains(cause)), "{done:?}");
        assert_eq!(peer.heard().last().map(String::as_str), Some("DATA"), "neither a final dot nor QUIT");
    }
}

#[tokio::test]
async fn without_sendpartial_nothing_is_sent_to_anybody_unless_all_are_accepted() {
    for (refusal, outcome) in [("550 no", Outcome::Failed), ("450 later", Outcome::Deferred)] {
        let first =
            Peer::start(
                move |line| {
                    if line.starts_with("RCPT TO:<b") { Some(refusal.to_owned()) } else { pipelining(line) }
                },
            )
            .await;
        let second = Peer::start(agreeable).await;
        let delivery = delivery(&[first.port, second.port], |config| config.send_partial = false);
        let (done, _) = attempt(&delivery, &["a@x.example", "b@x.example"]).await;
        assert_eq!((done[0].outcome, done[1].outcome), (Outcome::Deferred, outcome));
        assert_eq!((first.count("DATA"), second.count("CONNECT")), (0, 0));
        let (done, _) = attempt(&delivery, &["a@x.example"]).await;
        assert_eq!(done[0].outcome, Outcome::Delivered);
    }
}

#[tokio::test]
async fn a_host_with_smtputf8_is_found_and_without_one_only_who_needs_it_fails() {
    let with = |line: &str| {
        if line.starts_with("EHLO") { Some("250-peer\r\n250 SMTPUTF8".to_owned()) } else { agreeable(line) }
    };
    let (plain, other) = (Peer::start(agreeable).await, Peer::start(with).await);
    let recipients = ["ü@x.example", "a@bücher.example"];
    let (done, _) = attempt(&delivery(&[plain.port, other.port], |_| {}), &recipients).await;
    assert!(done.iter().all(|recorded| recorded.outcome == Outcome::Delivered), "{done:?}");
    assert_eq!(plain.count("RCPT TO:<a@xn--bcher-kva.example>"), 1);
    assert_eq!((other.count("MAIL FROM:<from@me.example> SMTPUTF8"), other.count("RCPT TO:<ü@x.example>")), (1, 1));

    let (done, _) = attempt(&delivery(&[plain.port], |_| {}), &recipients).await;
    assert_eq!((done[0].outcome, done[0].enhanced.as_deref()), (Outcome::Failed, Some("5.6.7")));
    assert_eq!(done[1].outcome, Outcome::Delivered);
}

#[tokio::test]
async fn credentials_are_masked_in_the_dialogue_and_one_refusal_is_enough() {
    let peer = Peer::start(|line| match line.split(' ').next() {
        Some("EHLO") => Some("250-peer\r\n250 AUTH login".to_owned()),
        Some("AUTH") => Some("334 VXNlcm5hbWU6".to_owned()),
        Some("dXNlcg==") => Some("334 UGFzc3dvcmQ6".to_owned()),
        Some("c2VjcmV0") => Some("535 5.7.8 no".to_owned()),
        _ => agreeable(line),
    })
    .await;
    let delivery = delivery(&[peer.port, peer.port], |config| {
        config.credentials = Some(Credentials { username: "user".into(), password: Secret::new("secret".to_owned()) });
        config.auth_in_clear = true;
    });
    for _ in 0..3 {
        let (done, record) = attempt(&delivery, &["a@x.example"]).await;
        assert_eq!((done[0].outcome, done[0].stage), (Outcome::Deferred, Stage::Auth));
        let dialogue = record.dialogue.lock().expect("lock").join("\n");
        assert!(!dialogue.contains("c2VjcmV0") && !dialogue.contains("dXNlcg=="), "{dialogue}");
    }
    assert_eq!(peer.count("AUTH LOGIN"), 1);
}

#[tokio::test]
async fn a_limit_of_connections_defers_nobody() {
    let open = Arc::new(Mutex::new(0_i32));
    let peer = Peer::start(move |line| {
        let mut open = open.lock().expect("lock");
        match line {
            "BANNER" if *open == 2 => return Some("421 4.7.0 too many connections".to_owned()),
            "BANNER" => *open += 1,
            "QUIT" => *open -= 1,
            _ => {}
        }
        agreeable(line)
    })
    .await;
    let delivery = Arc::new(delivery(&[peer.port], |_| {}));
    let mails: Vec<_> = (0..40)
        .map(|_| {
            let delivery = Arc::clone(&delivery);
            tokio::spawn(async move { attempt(&delivery, &["a@x.example"]).await.0 })
        })
        .collect();
    for mail in mails {
        assert_eq!(mail.await.expect("no panic")[0].outcome, Outcome::Delivered);
    }
    assert_eq!(peer.count("CONTENT"), 40);
}

#[tokio::test]
async fn where_tls_fails_mail_goes_in_clear_over_a_new_connection_unless_it_must_not() {
    let offers = |line: &str| match line {
        "EHLO me.example" => Some("250-peer\r\n250 StartTLS".to_owned()),
        "STARTTLS" => Some("220 go\r\nthis is no TLS".to_owned()),
        line => agreeable(line),
    };
    for (policy, delivered) in [(StartTls::Opportunistic, 1), (StartTls::Required, 0), (StartTls::Never, 1)] {
        let peer = Peer::start(offers).await;
        let delivery = delivery(&[peer.port], |config| config.start_tls = policy);
        let (done, _) = attempt(&delivery, &["a@x.example"]).await;
        assert_eq!(peer.count("CONTENT"), delivered, "{done:?}");
        assert_eq!(peer.count("MAIL"), delivered);
        let said_why = done[0].notes.iter().any(|note| note.starts_with("sent in clear: "));
        assert_eq!(said_why, delivered == 1, "{:?}", done[0].notes);
    }
}

#[tokio::test]
async fn replies_injected_behind_starttls_are_never_used() {
    let peer = Peer::start(|line| match line {
        "EHLO me.example" => Some("250-peer\r\n250 STARTTLS".to_owned()),
        "STARTTLS" => Some("220 go\r\n250-INJECTED\r\n250 AUTH PLAIN".to_owned()),
        line => agreeable(line),
    })
    .await;
    let delivery = delivery(&[peer.port], |_| {});
    let (done, _) = attempt(&delivery, &["a@x.example"]).await;
    assert_eq!(outcomes(&done), [(Outcome::Deferred, None, Stage::Starttls)]);
    assert_eq!(peer.count("MAIL"), 0);
}
