//! Commands and replies.

use tokio::net::TcpStream;

use super::{Client, LIMIT, LONG, Relay};

/// Plays a dialogue behind the banner and EHLO; which mails came of it.
async fn after_ehlo(relay: &Relay, script: &str) -> Vec<String> {
    let mut client = relay.connect().await;
    client.talk("S: 220 *\nC: EHLO client.example\nS: 250-relay.test").await;
    while !client.line().await.starts_with("250 ") {}
    client.talk(script).await;
    relay.envelopes().await
}

#[tokio::test]
async fn a_mail_is_taken_with_one_trace_field_and_attempted_at_once() {
    let relay = Relay::start();
    let mut arrivals = relay.store.arrivals();
    relay
        .connect()
        .await
        .talk(&format!(
            "S: 220 relay.test ESMTP redeliver
             C: EHLO client.example
             S: 250-relay.test
             S: 250-PIPELINING
             S: 250-SIZE {LIMIT}
             S: 250-8BITMIME
             S: 250-SMTPUTF8
             S: 250 ENHANCEDSTATUSCODES
             C: MAIL FROM:<a@x.example> SIZE=20 BODY=8BITMIME
             S: 250 2.1.0 ok
             C: RCPT TO:<b@y.example>
             S: 250 2.1.5 ok
             C: DATA
             S: 354 end with a line that is a dot
             C: Subject: s
             C:
             C: text
             C: .
             S: 250 2.6.0 *
             C: QUIT
             S: 221 2.0.0 goodbye
             S: (closed)"
        ))
        .await;
    tokio::time::timeout(LONG, arrivals.next()).await.expect("told");
    let mails = relay.mails().await;
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].envelope, "a@x.example b@y.example");
    assert_eq!(mails[0].without_trace(), b"Subject: s\r\n\r\ntext\r\n");
    let message = String::from_utf8_lossy(&mails[0].message);
    assert_eq!(message.matches("Received:").count(), 1);
    assert!(message.starts_with("Received: from client.example ([127.0.0.1])\r\n\tby relay.test\r\n\twith ESMTP id "));
    assert!(message.contains("\r\n\tfor <b@y.example>;\r\n"), "{message}");
}

#[tokio::test]
async fn commands_in_the_wrong_order_change_nothing() {
    let relay = Relay::start();
    relay
        .connect()
        .await
        .talk(
            "S: 220 *
             C: MAIL FROM:<a@x.example>
             S: 503 5.5.1 say EHLO first
             C: RCPT TO:<b@y.example>
             S: 503 5.5.1 *
             C: DATA
             S: 503 5.5.1 *
             C: HELO old.example
             S: 250 relay.test
             C: RCPT TO:<b@y.example>
             S: 503 5.5.1 say MAIL first
             C: DATA
             S: 503 5.5.1 *
             C: MAIL FROM:<a@x.example>
             S: 250 2.1.0 *
             C: DATA
             S: 503 5.5.1 *
             C: MAIL FROM:<other@x.example>
             S: 503 5.5.1 *
             C: RCPT TO:<b@y.example>
             S: 250 2.1.5 *
             C: NOOP
             S: 250 2.0.0 *
             C: VRFY b
             S: 252 2.5.0 *
             C: HELP
             S: 214 2.0.0 *
             C: DATA
             S: 354 *
             C: .
             S: 250 2.6.0 *
             C: DATA
             S: 503 5.5.1 *",
        )
        .await;
    let mails = relay.mails().await;
    assert_eq!(mails[0].envelope, "a@x.example b@y.example");
    assert!(String::from_utf8_lossy(&mails[0].message).contains("\r\n\twith SMTP id "));
    assert_eq!((mails.len(), mails[0].without_trace()), (1, &b""[..]), "an empty message is one");
}

#[tokio::test]
async fn nothing_of_one_mail_is_left_for_the_next() {
    let relay = Relay::start();
    let mut expected = Vec::new();
    for (number, between) in [
        "C: RSET\nS: 250 2.0.0 *",
        "C: HELO again.example\nS: 250 relay.test",
        "C: DATA\nS: 354 *\nC: .\nS: 250 2.6.0 *",
        "C: DATA\nS: 354 *\nX: bare\\nline\\r\\n.\\r\\n\nS: 550 5.6.0 *",
    ]
    .into_iter()
    .enumerate()
    {
        if between.contains("250 2.6.0") {
            expected.push("first@x.example one@y.example two@y.example".to_owned());
        }
        expected.push(format!("<> three{number}@y.example"));
        let script = format!(
            "C: MAIL FROM:<first@x.example> SMTPUTF8
             C: RCPT TO:<one@y.example>
             C: RCPT TO:<two@y.example>
             S: 250 2.1.0 *
             S: 250 2.1.5 *
             S: 250 2.1.5 *
             {between}
             C: RCPT TO:<four@y.example>
             S: 503 5.5.1 *
             C: MAIL FROM:<>
             S: 250 2.1.0 *
             C: RCPT TO:<ü@y.example>
             S: 550 5.6.7 *
             C: RCPT TO:<three{number}@y.example>
             S: 250 2.1.5 *
             C: DATA
             S: 354 *
             C: .
             S: 250 2.6.0 *"
        );
        assert_eq!(after_ehlo(&relay, &script).await, expected, "{between}");
    }
}

#[tokio::test]
async fn a_refused_mail_command_begins_nothing() {
    let relay = Relay::start();
    let script = format!(
        "C: MAIL FROM:<a@x.example> SIZE={}
         S: 552 5.3.4 *
         C: RCPT TO:<b@y.example>
         S: 503 5.5.1 *
         C: MAIL FROM:<a@x.example> SIZE=99999999999999999999
         S: 552 5.3.4 *
         C: MAIL FROM:<a@x.example> RET=FULL
         S: 555 5.5.4 *
         C: MAIL FROM:<ü@x.example>
         S: 550 5.6.7 *
         C: MAIL FROM:<a b@x.example>
         S: 501 5.1.7 *
         C: RCPT TO:<b@y.example>
         S: 503 5.5.1 *
         C: MAIL FROM:<a@x.example> SIZE={LIMIT}
         S: 250 2.1.0 *",
        LIMIT + 1
    );
    assert!(after_ehlo(&relay, &script).await.is_empty());
}

#[tokio::test]
async fn addresses_are_kept_as_they_were_written_and_each_mailbox_once() {
    let relay = Relay::start();
    let envelopes = after_ehlo(
        &relay,
        "C: MAIL FROM:<\"a@b> c\"@X.example> SMTPUTF8
         S: 250 2.1.0 *
         C: RCPT TO:<b@Y.example>
         C: RCPT TO:<b@y.EXAMPLE>
         C: RCPT TO:<B@y.example>
         C: RCPT TO:<@route.example:\"quoted >@\\\"\"@y.example>
         C: RCPT TO:<u%other.example@y.example>
         C: RCPT TO:<a@[IPv6:2001:db8::1]>
         C: RCPT TO:<ü@bücher.example>
         C: RCPT TO:<postMASTER>
         S: 250 2.1.5 *
         S: 250 2.1.5 *
         S: 250 2.1.5 *
         S: 250 2.1.5 *
         S: 250 2.1.5 *
         S: 250 2.1.5 *
         S: 250 2.1.5 *
         S: 250 2.1.5 *
         C: DATA
         S: 354 *
         C: .
         S: 250 2.6.0 *",
    )
    .await;
    let recipients = "b@Y.example B@y.example \"quoted >@\\\"\"@y.example u%other.example@y.example \
                      a@[IPv6:2001:db8::1] ü@bücher.example postmaster@Relay.test";
    assert_eq!(envelopes, [format!("\"a@b> c\"@X.example {recipients}")]);
}

#[tokio::test]
async fn what_is_no_recipient_is_refused_and_the_others_are_not() {
    let relay = Relay::start();
    let envelopes = after_ehlo(
        &relay,
        "C: MAIL FROM:<a@x.example>
         S: 250 2.1.0 *
         C: RCPT TO:<>
         S: 501 5.1.3 *
         C: RCPT TO:<nobody>
         S: 501 5.1.3 *
         C: RCPT TO:<b@y.example> NOTIFY=NEVER
         S: 555 5.5.4 *
         C: RCPT TO:<-f@y.example>
         S: 501 5.1.3 *
         C: RCPT TO b@y.example
         S: 501 5.5.4 *
         X: RCPT TO:<b@y.example\\0>\\r\\n
         S: 500 5.5.2 *
         C: DATA
         S: 554 5.5.1 *
         C: RCPT TO:<b@y.example>
         S: 503 5.5.1 *
         C: MAIL FROM:<a@x.example>
         S: 250 2.1.0 *
         C: RCPT TO:<b@y.example>
         S: 250 2.1.5 *
         C: RCPT TO:<>
         S: 501 5.1.3 *
         C: DATA
         S: 354 *
         C: .
         S: 250 2.6.0 *",
    )
    .await;
    assert_eq!(envelopes, ["a@x.example b@y.example"]);
}

#[tokio::test]
async fn strangers_may_not_relay_to_anybody() {
    let relay = Relay::with(|config, _| config.networks = vec!["192.0.2.0/24".parse().expect("a network")]);
    let envelopes = after_ehlo(
        &relay,
        "C: MAIL FROM:<a@x.example>
         S: 250 2.1.0 *
         C: RCPT TO:<b@y.example>
         S: 550 5.7.1 you may not relay here
         C: RCPT TO:<postmaster>
         S: 550 5.7.1 *
         C: RCPT TO:<u%y.example@relay.test>
         S: 550 5.7.1 *
         C: RCPT TO:<@relay.test:b@y.example>
         S: 550 5.7.1 *
         C: DATA
         S: 554 5.5.1 *",
    )
    .await;
    assert!(envelopes.is_empty());
}

#[tokio::test]
async fn commands_that_come_together_are_answered_in_their_order() {
    let relay = Relay::start();
    let envelopes = after_ehlo(
        &relay,
        "C: MAIL FROM:<a@x.example>
         C: RCPT TO:<b@y.example>
         C: RCPT TO:<>
         C: DATA
         S: 250 2.1.0 *
         S: 250 2.1.5 *
         S: 501 5.1.3 *
         S: 354 *
         C: .
         C: MAIL FROM:<c@x.example>
         C: RCPT TO:<d@y.example>
         C: DATA
         S: 250 2.6.0 *
         S: 250 2.1.0 *
         S: 250 2.1.5 *
         S: 354 *
         C: .
         C: QUIT
         S: 250 2.6.0 *
         S: 221 2.0.0 *
         S: (closed)",
    )
    .await;
    assert_eq!(envelopes, ["a@x.example b@y.example", "c@x.example d@y.example"]);
}

#[tokio::test]
async fn a_client_that_does_not_wait_for_354_is_sent_away() {
    let relay = Relay::start();
    let envelopes = after_ehlo(
        &relay,
        "C: MAIL FROM:<a@x.example>
         C: RCPT TO:<b@y.example>
         C: DATA
         C: Subject: s
         C: .
         S: 250 2.1.0 *
         S: 250 2.1.5 *
         S: 554 5.5.0 *
         S: (closed)",
    )
    .await;
    assert!(envelopes.is_empty());
}

#[tokio::test]
async fn a_browser_that_was_talked_into_smtp_is_sent_away_at_its_first_line() {
    let relay = Relay::start();
    relay
        .connect()
        .await
        .talk(
            "C: POST / HTTP/1.1
             C: Host: 127.0.0.1:2525
             C:
             C: EHLO x
             C: MAIL FROM:<a@x.example>
             S: 220 *
             S: 421 4.7.0 *
             S: (closed)",
        )
        .await;
    assert!(relay.mails().await.is_empty());
}

#[tokio::test]
async fn beyond_the_limit_recipients_are_deferred_and_the_session_goes_on() {
    let relay = Relay::with(|config, _| config.max_recipients = 3);
    let rcpt = |number: usize| {
        let answer = if number < 3 { "250 2.1.5" } else { "452 4.5.3" };
        format!("C: RCPT TO:<r{number}@y.example>\nS: {answer} *\n")
    };
    let mut script = "C: MAIL FROM:<a@x.example>\nS: 250 *\n".to_owned();
    script.extend((0..100).map(rcpt));
    script += "C: RCPT TO:<r0@Y.example>\nS: 250 2.1.5 *\nC: DATA\nS: 354 *\nC: .\nS: 250 2.6.0 *\n";
    let envelopes = after_ehlo(&relay, &script).await;
    assert_eq!(envelopes, ["a@x.example r0@y.example r1@y.example r2@y.example"]);
}

#[tokio::test]
async fn little_room_and_a_store_in_trouble_defer_and_pass_by_themselves() {
    use std::sync::atomic::Ordering;

    use redeliver::spool::MIN_FREE;

    let relay = Relay::start();
    let mut client = relay.connect().await;
    client.talk("S: 220 *\nC: HELO client.example\nS: 250 *").await;
    relay.free_space.store(MIN_FREE - 1, Ordering::Relaxed);
    client.talk("C: MAIL FROM:<a@x.example>\nS: 452 4.3.1 *").await;
    relay.free_space.store(MIN_FREE + 50, Ordering::Relaxed);
    client.talk("C: MAIL FROM:<a@x.example> SIZE=51\nS: 452 4.3.1 *").await;
    client.talk("C: MAIL FROM:<a@x.example> SIZE=50\nS: 250 2.1.0 *").await;
    relay.store.close().await.expect("closes");
    client.talk("C: RCPT TO:<b@y.example>\nS: 250 *\nC: DATA\nS: 354 *\nC: .\nS: 451 4.3.0 *\nC: NOOP\nS: 250 *").await;
}

#[tokio::test]
async fn ipv4_through_an_ipv6_socket_is_ipv4() {
    let relay = Relay::with(|config, _| config.listen = vec!["[::]:0".parse().expect("an address")]);
    let mut client = Client::new(TcpStream::connect(("127.0.0.1", relay.address.port())).await.expect("connects"));
    client.until_data().await;
    client.talk("C: .\nS: 250 2.6.0 *").await;
    let mails = relay.mails().await;
    assert!(mails[0].message.starts_with(b"Received: from client.example ([127.0.0.1])\r\n"));
}
