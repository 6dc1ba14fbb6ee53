//! A run that is cancelled: what it has under way, and what others have.

use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::*;

/// Longer than an end may take, on a machine that does other things too.
const SOON: Duration = Duration::from_secs(3);

fn part_of(run: &Cancellation) -> Record {
    Record { message: "A: b\r\n".into(), run: run.clone(), ..Record::default() }
}

fn begin(delivery: &Arc<Delivery>, run: &Cancellation) -> tokio::task::JoinHandle<Attempted> {
    let (delivery, record) = (Arc::clone(delivery), part_of(run));
    tokio::spawn(async move { delivery.attempt(request("A: b\r\n", &["a@x.example"]), &record).await })
}

async fn until(mut reached: impl FnMut() -> bool) {
    while !reached() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_cancelled_run_breaks_off_what_waits_for_a_slow_peer() {
    for (silent_at, stage, in_doubt) in [
        ("BANNER", Stage::Banner, false),
        ("EHLO", Stage::Ehlo, false),
        ("MAIL", Stage::Mail, false),
        ("RCPT", Stage::Rcpt, false),
        ("DATA", Stage::Data, false),
        ("CONTENT", Stage::EndOfData, true),
    ] {
        let peer = Peer::start(move |line| if line.starts_with(silent_at) { None } else { agreeable(line) }).await;
        let delivery = Arc::new(delivery(&[peer.port], |config| config.timeout = Some(Duration::from_mins(5))));
        let run = Cancellation::default();
        let under_way = begin(&delivery, &run);
        let heard = if silent_at == "BANNER" { "CONNECT" } else { silent_at };
        until(|| peer.count(heard) > 0).await;
        let asked = Instant::now();
        run.cancel("anna (full) from 127.0.0.1");
        let ended = under_way.await.expect("no panic");
        assert!(asked.elapsed() < SOON, "{silent_at}: {:?}", asked.elapsed());
        let Attempted::Done(done) = &ended else { panic!("{silent_at}: {ended:?}") };
        assert_eq!(outcomes(done), [(Outcome::Deferred, None, stage)], "{silent_at}");
        assert_eq!(done[0].in_doubt, in_doubt, "{silent_at}");
        let cause = done[0].cause.as_deref().expect("a cause");
        assert!(cause.contains("broken off: the run was cancelled") && !cause.contains("anna"), "{cause}");
        assert_eq!(
            done[0].notes.last().map(String::as_str),
            Some("the run was cancelled by anna (full) from 127.0.0.1")
        );
        // It is nothing that the peer did.
        assert!(delivery.peers().iter().all(|peer| peer.down.is_none()), "{silent_at}");
        let next = delivery.attempt(request("A: b\r\n", &["a@x.example"]), &part_of(&run)).await;
        assert!(matches!(next, Attempted::Stopped), "{silent_at}: {next:?}");
    }
}

#[tokio::test]
async fn who_still_waits_for_a_connection_is_not_counted_and_other_runs_go_on() {
    let answers = Arc::new(Notify::new());
    let peer = Hesitant::start(Arc::clone(&answers)).await;
    let delivery = Arc::new(delivery(&[peer.port], |config| {
        config.timeout = Some(Duration::from_mins(5));
        config.delivery_threads = 1;
    }));
    let (run, other) = (Cancellation::default(), Cancellation::default());
    let under_way = begin(&delivery, &other);
    until(|| peer.waiting() > 0).await;
    let waiting = begin(&delivery, &run);
    until(|| delivery.waiting() == 1).await;
    run.cancel("anna");
    let ended = waiting.await.expect("no panic");
    assert!(matches!(ended, Attempted::Stopped), "{ended:?}");
    assert!(!under_way.is_finished());
    let waiting = begin(&delivery, &other);
    until(|| delivery.waiting() > 0).await;
    answers.notify_one();
    let ended = under_way.await.expect("no panic");
    assert!(matches!(&ended, Attempted::Done(done) if done[0].outcome == Outcome::Delivered), "{ended:?}");
    // Over the session of the other: it is nobody's meanwhile.
    answers.notify_one();
    let ended = waiting.await.expect("no panic");
    assert!(matches!(&ended, Attempted::Done(done) if done[0].outcome == Outcome::Delivered), "{ended:?}");
}

#[tokio::test]
async fn who_has_begun_ahead_and_still_waits_is_told_and_not_counted() {
    let busy = Hesitant::start(Arc::default()).await;
    let delivery = Arc::new(delivery(&[busy.port], |config| {
        config.timeout = Some(Duration::from_mins(5));
        config.delivery_threads = 4;
    }));
    let (run, other) = (Cancellation::default(), Cancellation::default());
    let others: Vec<_> = (0..4).map(|_| begin(&delivery, &other)).collect();
    until(|| busy.waiting() == 4).await;
    let record = Arc::new(part_of(&run));
    let waiting = {
        let (delivery, record) = (Arc::clone(&delivery), Arc::clone(&record));
        tokio::spawn(async move { delivery.attempt(request("A: b\r\n", &["a@x.example"]), &*record).await })
    };
    until(|| *record.begun.lock().expect("lock") == 1).await;
    run.cancel("anna");
    let ended = waiting.await.expect("no panic");
    let Attempted::LocalError(left, Uncounted::GivenUp) = &ended else { panic!("{ended:?}") };
    assert_eq!(left[0].cause.as_deref(), Some("broken off: the run was cancelled, before anything was sent"));
    assert_eq!(left[0].notes, ["the run was cancelled by anna"]);
    assert!(others.iter().all(|other| !other.is_finished()));
    for other in others {
        other.abort();
    }
}

#[tokio::test]
async fn a_peer_that_has_the_mail_has_a_moment_to_say_so() {
    let answers = Arc::new(Notify::new());
    let peer = Hesitant::start(Arc::clone(&answers)).await;
    let delivery = Arc::new(delivery(&[peer.port], |config| config.timeout = Some(Duration::from_mins(5))));
    let run = Cancellation::default();
    let under_way = begin(&delivery, &run);
    until(|| peer.waiting() > 0).await;
    run.cancel("anna");
    tokio::time::sleep(Duration::from_millis(20)).await;
    answers.notify_one();
    let ended = under_way.await.expect("no panic");
    assert!(matches!(&ended, Attempted::Done(done) if done[0].outcome == Outcome::Delivered), "{ended:?}");
}

/// A peer that takes its time for the reply to the final dot.
struct Hesitant {
    port: u16,
    dots: Arc<Mutex<u32>>,
}

impl Hesitant {
    /// Each reply comes with one permit of `answers`.
    async fn start(answers: Arc<Notify>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let dots = Arc::new(Mutex::new(0));
        let seen = Arc::clone(&dots);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answers, seen) = (Arc::clone(&answers), Arc::clone(&seen));
                tokio::spawn(async move { Self::converse(stream, &answers, &seen).await });
            }
        });
        Self { port, dots }
    }

    /// How many final dots it has heard.
    fn waiting(&self) -> u32 {
        *self.dots.lock().expect("lock")
    }

    async fn converse(mut stream: TcpStream, answers: &Notify, seen: &Mutex<u32>) -> Option<()> {
        let (reading, mut writing) = stream.split();
        let mut lines = BufReader::new(reading).lines();
        writing.write_all(b"220 here\r\n").await.ok()?;
        let mut in_content = false;
        while let Some(line) = lines.next_line().await.ok()? {
            let reply = match line.as_str() {
                "." => {
                    in_content = false;
                    *seen.lock().expect("lock") += 1;
                    answers.notified().await;
                    "250 taken"
                }
                _ if in_content => continue,
                "DATA" => {
                    in_content = true;
                    "354 go"
                }
                _ => "250 ok",
            };
            writing.write_all(format!("{reply}\r\n").as_bytes()).await.ok()?;
        }
        Some(())
    }
}
