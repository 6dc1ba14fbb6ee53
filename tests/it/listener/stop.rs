//! Ends: theirs and ours.

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Client, LIMIT, LONG, Relay};

#[tokio::test]
async fn a_client_that_is_gone_leaves_nothing_behind() {
    let begun = "S: 220 *\nC: HELO client.example\nS: 250 *\n";
    let mail = format!("{begun}C: MAIL FROM:<>\nS: 250 *\n");
    let data = format!("{mail}C: RCPT TO:<b@y.example>\nS: 250 *\nC: DATA\nS: 354 *\n");
    let relay = Relay::start();
    for stage in ["", "S: 220 *\n", begun, &mail, &data, &format!("{data}C: Subject: s\nC:\nX: half a line")] {
        for reset in [false, true] {
            for octets in [0, LIMIT - 1000] {
                let stream = TcpStream::connect(relay.address).await.expect("connects");
                if reset {
                    stream.set_zero_linger().expect("set");
                }
                let mut client = Client::new(stream);
                client.talk(stage).await;
                // Rows of it are written ahead by then.
                if stage.starts_with(&data) {
                    client.send(&vec![b'x'; octets]).await;
                }
            }
        }
    }
    // None of them holds a slot or a row for longer than the listener needs to notice.
    relay.stop.gentle.cancel();
    assert_eq!(relay.left().await, (0, 0, 0));
}

#[tokio::test]
async fn a_gentle_stop_lets_a_mail_that_is_begun_end() {
    let relay = Relay::start();
    let (mut idle, mut busy, mut beginning) = (relay.connect().await, relay.connect().await, relay.connect().await);
    idle.talk("S: 220 *").await;
    busy.until_data().await;
    beginning.talk("S: 220 *\nC: HELO x\nS: 250 *\nC: MAIL FROM:<c@x.example>\nS: 250 *").await;
    relay.stop.gentle.cancel();
    idle.talk("S: 421 4.3.2 *\nS: (closed)").await;
    busy.talk("C: text\nC: .\nS: 250 2.6.0 *\nS: 421 4.3.2 *\nS: (closed)").await;
    beginning
        .talk("C: RCPT TO:<d@y.example>\nS: 250 *\nC: DATA\nS: 354 *\nC: .\nS: 250 *\nS: 421 4.3.2 *\nS: (closed)")
        .await;
    drop((idle, busy, beginning));
    let envelopes = relay.envelopes().await;
    assert_eq!(envelopes, ["a@x.example b@y.example", "c@x.example d@y.example"]);
    timeout(LONG, relay.running).await.expect("ends").expect("no panic");
    assert!(TcpStream::connect(relay.address).await.is_err(), "the socket is closed");
}

#[tokio::test]
async fn a_stranger_who_has_said_mail_holds_up_no_end() {
    let relay = Relay::with(|config, _| config.networks.clear());
    let mut stranger = relay.connect().await;
    stranger.talk("S: 220 *\nC: HELO x\nS: 250 *\nC: MAIL FROM:<c@x.example>\nS: 250 *").await;
    stranger.talk("C: RCPT TO:<d@y.example>\nS: 550 5.7.1 *").await;
    relay.stop.gentle.cancel();
    stranger.talk("S: 421 4.3.2 *\nS: (closed)").await;
    timeout(LONG, relay.running).await.expect("ends").expect("no panic");
}

#[tokio::test]
async fn a_hard_stop_gives_up_what_is_coming_in() {
    let relay = Relay::start();
    let mut client = relay.connect().await;
    client.until_data().await;
    client.send(&vec![b'x'; LIMIT / 2]).await;
    relay.stop.gentle.cancel();
    relay.stop.hard.cancel();
    client.talk("S: 421 4.3.2 *").await;
    assert_eq!(relay.left().await, (0, 0, 0));
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    use redeliver::ingest::Listener;

    let relay = Relay::start();
    let mut config = relay.config.clone();
    config.listen = vec!["127.0.0.1:0".parse().expect("an address"), relay.address];
    let error =
        Listener::bind(&config, super::context(&relay.store, &relay.free_space)).err().expect("refused").to_string();
    assert!(error.starts_with(&format!("cannot listen on {}: ", relay.address)), "{error}");
}
