//! What the log says of the way in.

use std::io::Write;
use std::sync::{Arc, Mutex};

use tracing_subscriber::fmt::MakeWriter;

use super::Relay;

/// Lines of the log of this thread's sessions.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").write(octets)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Log {
    /// Until the guards are dropped.
    pub(super) fn listen(&self) -> (tracing::Dispatch, tracing::subscriber::DefaultGuard) {
        // With a single subscriber, a line of the program that another thread comes by first
        // would be taken for one that nobody listens to.
        let second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
        let lines = tracing_subscriber::fmt().json().with_max_level(tracing::Level::TRACE).with_writer(self.clone());
        let first = tracing::subscriber::set_default(lines.finish());
        tracing::callsite::rebuild_interest_cache();
        (second, first)
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no panic").clone()).expect("UTF-8")
    }

    /// The fields of lines with that message.
    fn lines(&self, message: &str) -> Vec<serde_json::Value> {
        let text = self.text();
        let parsed = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        parsed.map(|line| line["fields"].clone()).filter(|fields| fields["message"] == message).collect()
    }
}

#[tokio::test]
async fn each_mail_has_one_line_whether_it_was_taken_or_not() {
    let log = Log::default();
    let _listening = log.listen();
    let relay = Relay::start();
    relay
        .connect()
        .await
        .talk(
            "S: 220 *
             C: HELO client.example
             S: 250 *
             C: MAIL FROM:<a@x.example>
             S: 250 *
             C: RCPT TO:<b@y.example>
             S: 250 *
             C: RCPT TO:<c@y.example>
             S: 250 *
             C: RCPT TO:<>
             S: 501 *
             C: DATA
             S: 354 *
             C: text
             C: .
             S: 250 *
             C: MAIL FROM:<>
             S: 250 *
             C: RCPT TO:<d@y.example>
             S: 250 *
             C: DATA
             S: 354 *
             X: a secret\\n.\\r\\n.\\r\\n
             S: 550 *
             C: MAIL FROM:<e@x.example> SIZE=99999999
             S: 552 *
             C: QUIT
             S: 221 *
             S: (closed)",
        )
        .await;
    let accepted = log.lines("mail accepted");
    assert_eq!(accepted.len(), 1, "{accepted:?}");
    let fields = &accepted[0];
    assert_eq!((&fields["reverse_path"], &fields["recipients"]), (&"a@x.example".into(), &2.into()));
    assert_eq!((&fields["refused"], &fields["size"]), (&1.into(), &6.into()));
    let mails = relay.mails().await;
    let key = fields["mail.id"].as_str().expect("a key");
    assert!(String::from_utf8_lossy(&mails[0].message).contains(&format!("id {key}")));
    assert!(fields["client"].as_str().expect("an address").starts_with("127.0.0.1:"));
    let refused = log.lines("mail refused");
    let replies: Vec<_> = refused.iter().map(|fields| fields["reply"].as_str().expect("a reply")).collect();
    assert_eq!(replies.len(), 2, "{replies:?}");
    assert!(replies[0].starts_with("550 5.6.0 ") && replies[1].starts_with("552 5.3.4 "), "{replies:?}");
    assert!(!log.text().contains("secret"), "no message content at any level: {}", log.text());
}
