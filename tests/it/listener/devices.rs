//! Printers, controllers, telnet and balancers: what those who may relay are forgiven, and
//! strangers are not.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::Relay;

/// A listener on which a client of the loopback is a stranger.
fn for_strangers() -> Relay {
    Relay::with(|config, _| config.networks = vec!["192.0.2.0/24".parse().expect("a network")])
}

#[tokio::test]
async fn devices_are_forgiven_blanks_brackets_and_odd_names() {
    for (ehlo, name) in [
        ("EHLO my pc", "[127.0.0.1]"),
        ("HELO", "[127.0.0.1]"),
        ("EHLO  printer_7!", "printer_7!"),
        ("EHLO caf\u{e9}!", "caf??!"),
    ] {
        let relay = Relay::start();
        let mut client = relay.connect().await;
        client.talk(&format!("S: 220 *\nC: {ehlo}")).await;
        while !client.line().await.starts_with("250 ") {}
        client
            .talk(
                "C: MAIL FROM: a@x.example  SIZE=10
                 S: 250 *
                 C: RCPT TO:b@y.example
                 S: 250 *
                 C: RCPT TO: < c@y.example >
                 S: 250 *
                 C: DATA
                 S: 354 *
                 C: .
                 S: 250 2.6.0 *",
            )
            .await;
        let mails = relay.mails().await;
        assert_eq!(mails[0].envelope, "a@x.example b@y.example c@y.example");
        let message = String::from_utf8_lossy(&mails[0].message);
        assert!(message.starts_with(&format!("Received: from {name} ([127.0.0.1])\r\n")), "{ehlo}: {message}");
    }
}

#[tokio::test]
async fn strangers_are_forgiven_nothing() {
    let relay = for_strangers();
    relay
        .connect()
        .await
        .talk(
            "S: 220 *
             C: EHLO my pc
             S: 501 *
             C: HELO
             S: 501 *
             C: HELO x
             S: 250 *
             C: MAIL FROM: <a@x.example>
             S: 501 5.5.4 *
             C: MAIL FROM:a@x.example
             S: 501 5.5.4 *
             C: MAIL FROM:<a@x.example>
             S: 250 *
             C: RCPT TO:root
             S: 501 *
             C: RCPT TO:<root@relay.test>
             S: 550 5.7.1 *
             X: NOOP\\n
             S: 500 *",
        )
        .await;
}

#[tokio::test]
async fn a_bare_lf_is_a_line_end_where_that_is_set_and_ends_no_message() {
    let relay = Relay::with(|config, _| config.normalize_lf = true);
    relay
        .connect()
        .await
        .talk(
            "S: 220 *
             X: HELO printer\\n
             S: 250 *
             X: MAIL FROM:<a@x.example>\\n
             S: 250 *
             X: RCPT TO:<b@y.example>\\n
             S: 250 *
             X: DATA\\n
             S: 354 *
             X: Subject: s\\n\\none\\n.\\ntwo\\n..three\\r\\n..four\\r\\n.\\r\\n
             S: 250 2.6.0 *
             X: MAIL FROM:<a@x.example>\\nRCPT TO:<b@y.example>\\nDATA\\n
             S: 250 *
             S: 250 *
             S: 354 *
             X: bare\\rCR\\n\\r\\n.\\r\\n
             S: 550 5.6.0 *",
        )
        .await;
    let mails = relay.mails().await;
    assert_eq!(mails.len(), 1);
    let text = String::from_utf8_lossy(mails[0].without_trace()).into_owned();
    assert_eq!(text, "Subject: s\r\n\r\none\r\n.\r\ntwo\r\n..three\r\n.four\r\n");
}

#[tokio::test]
async fn strangers_and_those_who_did_not_set_it_keep_their_bare_lf_to_themselves() {
    let set = |config: &mut redeliver::ingest::ListenerConfig| config.normalize_lf = true;
    let strange = Relay::with(|config, _| {
        set(config);
        config.networks = vec!["192.0.2.0/24".parse().expect("a network")];
    });
    strange.connect().await.talk("S: 220 *\nX: NOOP\\n\nS: 500 5.5.2 *").await;
    let unset = Relay::start();
    let mut client = unset.connect().await;
    client.until_data().await;
    client.talk("X: a\\nb\\r\\n.\\r\\n\nS: 550 5.6.0 *").await;
}

#[tokio::test]
async fn smtputf8_can_be_left_out_of_the_offer() {
    let relay = Relay::with(|config, _| config.smtputf8 = false);
    relay
        .connect()
        .await
        .talk(
            "S: 220 *
             C: EHLO x
             S: 250-relay.test
             S: 250-PIPELINING
             S: 250-SIZE *
             S: 250-8BITMIME
             S: 250 ENHANCEDSTATUSCODES
             C: MAIL FROM:<a@x.example> SMTPUTF8
             S: 555 5.5.4 *
             C: MAIL FROM:<a@x.example>
             S: 250 *
             C: RCPT TO:<\u{fc}@y.example>
             S: 550 5.6.7 *",
        )
        .await;
}

#[tokio::test]
async fn probes_cost_no_connection_and_no_place() {
    let relay = Relay::with(|config, _| config.limits.connections_per_address = 5);
    for _ in 0..60 {
        drop(TcpStream::connect(relay.address).await.expect("connects"));
    }
    for _ in 0..20 {
        let mut stream = TcpStream::connect(relay.address).await.expect("connects");
        // Whoever has no place any more is closed, and a probe does not care.
        let _ = stream.write_all(b"EHLO probe\r\n").await;
    }
    let served = async {
        loop {
            let mut client = relay.connect().await;
            if client.line().await.starts_with("220 ") {
                return client;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let mut client = tokio::time::timeout(super::LONG, served).await.expect("the places are given back");
    client.talk("C: PROXY TCP4 192.0.2.1 192.0.2.2 5 25\nS: 500 *\nC: NOOP\nS: 250 *").await;
}
