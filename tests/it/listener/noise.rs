//! Octets that no client means.

use proptest::prelude::*;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::{LONG, Relay};

/// What a session is made of, whole and broken.
fn pieces() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let known = prop::sample::select(vec![
        "EHLO x\r\n",
        "HELO x\r\n",
        "MAIL FROM:<>\r\n",
        "MAIL FROM:<a@x.example> SIZE=5\r\n",
        "RCPT TO:<b@y.example>\r\n",
        "DATA\r\n",
        ".\r\n",
        "\r\n.\r\n",
        "text\r\n",
        "RSET\r\n",
        "STARTTLS\r\n",
        "AUTH PLAIN AGEAYg==\r\n",
        "\n",
        "\r",
        "<",
    ]);
    let noise = prop::collection::vec(any::<u8>(), 0..40);
    prop::collection::vec(prop_oneof![4 => known.prop_map(|text| text.as_bytes().to_vec()), 1 => noise], 0..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn whatever_a_client_sends_every_reply_is_one_and_the_next_session_works(sent in pieces()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let relay = Relay::start();
            let mut client = relay.connect().await;
            for piece in &sent {
                // It may have been sent away already.
                let _ = tokio::io::AsyncWriteExt::write_all(&mut client.stream, piece).await;
            }
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut client.stream).await;
            let mut said = Vec::new();
            let _ = timeout(LONG, client.stream.read_to_end(&mut said)).await.expect("it ends");
            let said = String::from_utf8(said).expect("ASCII");
            for reply in said.split_terminator("\r\n") {
                let code = reply.get(..3).and_then(|code| code.parse::<u16>().ok());
                assert!(code.is_some_and(|code| (200..600).contains(&code)), "{reply:?}");
            }
            assert_eq!(relay.first_digit().await, b'2');
        });
    }
}
