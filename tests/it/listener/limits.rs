//! What one client may take of us.

use std::time::Duration;

use redeliver::ingest::Limits;
use tokio::time::timeout;

use super::{Client, LONG, Relay};

const SHORT: Duration = Duration::from_millis(300);

fn with_limits(limits: Limits) -> Relay {
    Relay::with(|config, _| config.limits = limits)
}

#[tokio::test]
async fn connections_beyond_the_limits_are_turned_away_and_slots_are_given_back() {
    for limits in
        [Limits { connections: 2, ..Limits::default() }, Limits { connections_per_address: 2, ..Limits::default() }]
    {
        let relay = with_limits(limits);
        let mut clients = [relay.connect().await, relay.connect().await];
        for client in &mut clients {
            client.talk("S: 220 *").await;
        }
        relay.connect().await.talk("S: 421 4.7.0 too many connections*\nS: (closed)").await;
        let [mut first, second] = clients;
        first.talk("C: QUIT\nS: 221 *\nS: (closed)").await;
        drop((first, second));
        // The slot is free as soon as the listener has seen the end.
        let given_back = async {
            while relay.first_digit().await != b'2' {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, given_back).await.expect("a connection's place is given back with its end");
    }
}

#[tokio::test]
async fn a_client_that_says_nothing_or_too_little_is_sent_away() {
    let relay = with_limits(Limits { command: SHORT, ..Limits::default() });
    relay.connect().await.talk("S: 220 *\nS: 421 4.4.2 *\nS: (closed)").await;
    let mut client = relay.connect().await;
    client.talk("S: 220 *").await;
    assert_eq!(drip(&mut client, b"E").await, "421 4.4.2 you took too long");
}

#[tokio::test]
async fn a_message_that_comes_too_slowly_is_given_up() {
    let slow = Limits { data_stretch: SHORT, data_rate: 1000, ..Limits::default() };
    let endless = Limits { data: SHORT, data_stretch: SHORT / 4, data_rate: 1, ..Limits::default() };
    for limits in [slow, endless] {
        let relay = with_limits(limits);
        let mut client = relay.connect().await;
        client.until_data().await;
        assert_eq!(drip(&mut client, b"x\r\n").await, "421 4.4.2 you took too long");
        assert_eq!(relay.left().await, (0, 0, 0));
    }
}

/// Sends again and again until there is an answer.
async fn drip(client: &mut Client, octets: &[u8]) -> String {
    use tokio::io::AsyncBufReadExt;

    for _ in 0..200 {
        client.send(octets).await;
        let tick = Duration::from_millis(20);
        if tokio::time::timeout(tick, client.stream.fill_buf()).await.is_ok() {
            return client.line().await;
        }
    }
    panic!("no answer in 4 seconds");
}

#[tokio::test]
async fn a_session_ends_after_too_many_errors_since_the_last_mail() {
    let relay = with_limits(Limits { errors: 3, ..Limits::default() });
    let mail = "C: MAIL FROM:<>\nS: 250 *\nC: RCPT TO:<b@y.example>\nS: 250 *\nC: DATA\nS: 354 *\nC: .\nS: 250 *\n";
    let script = format!(
        "S: 220 *
         C: HELO client.example
         S: 250 *
         C: X
         C: X
         S: 500 5.5.2 *
         S: 500 5.5.2 *
         {mail}
         C: X
         C: X
         C: X
         C: X
         S: 500 5.5.2 *
         S: 500 5.5.2 *
         S: 500 5.5.2 *
         S: 421 4.7.0 too many errors
         S: (closed)"
    );
    relay.connect().await.talk(&script).await;
    assert_eq!(relay.mails().await.len(), 1);
}

#[tokio::test]
async fn commands_that_bring_no_mail_about_may_not_be_said_for_ever() {
    let relay = with_limits(Limits { errors: 5, idle_commands: 10, ..Limits::default() });
    for command in ["NOOP", "RSET", "VRFY x", "HELP", "EHLO x", "HELO x"] {
        let mut client = relay.connect().await;
        client.send(format!("{command}\r\n").repeat(10_000).as_bytes()).await;
        let mut said = client.line().await;
        let mut lines = 0;
        while !said.starts_with("421 ") {
            lines += 1;
            assert!(lines < 15 * 7 && !said.is_empty(), "{command}: {said:?}");
            said = client.line().await;
        }
        assert_eq!(said, "421 4.7.0 too many errors", "{command}");
    }
}

#[tokio::test]
async fn a_line_may_be_so_long_and_no_longer() {
    let relay = Relay::start();
    let mut client = relay.connect().await;
    client.talk("S: 220 *\nC: HELO client.example\nS: 250 *").await;
    let line = |start: &str, octets: usize| format!("C: {start}{}\n", "x".repeat(octets - 2 - start.len()));
    client.talk(&format!("{}S: 250 2.0.0 *", line("NOOP ", 512))).await;
    client.talk(&format!("{}S: 500 5.5.2 *", line("NOOP ", 513))).await;
    client.talk(&format!("{}S: 250 2.1.0 *", line("MAIL FROM:<a@x.example> AUTH=", 2048))).await;
    client.talk(&format!("C: RSET\nS: 250 *\n{}S: 500 5.5.2 *", line("MAIL FROM:<a@x.example> AUTH=", 2049))).await;
    client.send(&vec![b'x'; 10 * 1024 * 1024]).await;
    client.talk("C: end\nS: 500 5.5.2 the line is too long\nC: NOOP\nS: 250 *").await;
    client.talk("X: NOOP\\n\nS: 500 5.5.2 a line ends with CR LF\nX: NOOP\\r\\r\\n\nS: 500 5.5.2 *").await;
}

#[tokio::test]
async fn a_client_that_reads_no_answers_is_left() {
    use tokio::io::AsyncWriteExt;

    let limits = Limits { command: SHORT, connections: 1, idle_commands: u32::MAX, ..Limits::default() };
    let relay = with_limits(limits);
    let mut deaf = relay.connect().await;
    let commands = "NOOP\r\n".repeat(10_000);
    while deaf.stream.write_all(commands.as_bytes()).await.is_ok() {}
    while relay.first_digit().await != b'2' {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
