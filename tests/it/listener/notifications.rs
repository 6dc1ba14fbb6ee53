//! What a client asks of notifications (RFC 3461): taken where DSN is offered, and there alone.

use super::{Client, Relay};
use redeliver::store::{MailFilter, Place, Span};

fn offering(offered: bool) -> Relay {
    Relay::with(|config, _| config.dsn = offered)
}

/// Plays a dialogue behind the banner and EHLO; whether DSN was offered.
async fn after_ehlo(relay: &Relay, script: &str) -> bool {
    let mut client: Client = relay.connect().await;
    client.talk("S: 220 *\nC: EHLO client.example\nS: 250-relay.test").await;
    let mut offered = false;
    loop {
        let line = client.line().await;
        offered |= &line[4..] == "DSN";
        if line.starts_with("250 ") {
            break;
        }
    }
    client.talk(script).await;
    offered
}

/// `recipient NOTIFY ORCPT` of each recipient of the only mail, with RET and ENVID in front.
async fn asked(relay: &Relay) -> Vec<String> {
    let listed = relay.store.list(&Place::Spool, &MailFilter::default(), &Span::of(9)).await.expect("lists");
    assert_eq!(listed.items.len(), 1);
    let envelope = &listed.items[0].mail.envelope;
    let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let of_mail = format!("{} {}", text(envelope.dsn.ret.map(|ret| ret.to_string())), text(envelope.dsn.envid.clone()));
    let of_recipients = envelope.recipients.iter().map(|recipient| {
        let request = envelope.dsn.of(recipient);
        let notify = request.notify.map(|notify| notify.to_string());
        format!("{recipient} {} {}", text(notify), text(request.orcpt.clone()))
    });
    [of_mail].into_iter().chain(of_recipients).collect()
}

#[tokio::test]
async fn each_recipient_keeps_what_was_asked_for_him() {
    let relay = offering(true);
    let offered = after_ehlo(
        &relay,
        "C: MAIL FROM:<a@x.example> ret=hdrs ENVID=QQ+2B314159
         S: 250 2.1.0 *
         C: RCPT TO:<never@y.example> NOTIFY=NEVER
         C: RCPT TO:<all@y.example> notify=Delay,SUCCESS,failure ORCPT=rfc822;Al+2Bl@z.example
         C: RCPT TO:<silent@y.example>
         C: RCPT TO:<twice@y.example> NOTIFY=DELAY
         C: RCPT TO:<twice@Y.example> NOTIFY=SUCCESS
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
    assert!(offered);
    assert_eq!(
        asked(&relay).await,
        [
            "HDRS QQ+2B314159",
            "never@y.example NEVER -",
            "all@y.example DELAY,SUCCESS,FAILURE rfc822;Al+2Bl@z.example",
            "silent@y.example - -",
            "twice@y.example DELAY,SUCCESS -",
        ]
    );
}

#[tokio::test]
async fn what_is_written_wrong_is_refused_and_leaves_nothing() {
    let relay = offering(true);
    let long = "x".repeat(101);
    let offered = after_ehlo(
        &relay,
        &format!(
            "C: MAIL FROM:<a@x.example> RET=ALL
             S: 501 5.5.4 RET is FULL or HDRS
             C: MAIL FROM:<a@x.example> RET=FULL RET=FULL
             S: 501 5.5.4 a parameter stands there twice
             C: MAIL FROM:<a@x.example> ENVID=a+0D+0AQUIT
             S: 501 5.5.4 a value in xtext *
             C: MAIL FROM:<a@x.example> ENVID={long}
             S: 501 5.5.4 ENVID has 1 to 100 characters
             C: MAIL FROM:<a@x.example> NOTIFY=NEVER
             S: 555 5.5.4 the parameter NOTIFY is not known
             C: MAIL FROM:<a@x.example>
             S: 250 2.1.0 *
             C: RCPT TO:<b@y.example> NOTIFY=NEVER,FAILURE
             S: 501 5.5.4 NOTIFY is NEVER alone, *
             C: RCPT TO:<b@y.example> NOTIFY=
             S: 501 5.5.4 *
             C: RCPT TO:<b@y.example> ORCPT=b@y.example
             S: 501 5.5.4 ORCPT is a type, *
             C: RCPT TO:<b@y.example> ORCPT=utf-8;\u{fc}@y.example
             S: 501 5.5.4 an ORCPT outside ASCII needs SMTPUTF8
             C: RCPT TO:<b@y.example> RET=FULL
             S: 555 5.5.4 the parameter RET is not known
             C: RCPT TO:<b@y.example>
             S: 250 2.1.5 *
             C: DATA
             S: 354 *
             C: .
             S: 250 2.6.0 *"
        ),
    )
    .await;
    assert!(offered);
    assert_eq!(asked(&relay).await, ["- -", "b@y.example - -"]);
}

#[tokio::test]
async fn what_is_not_offered_is_not_known_however_it_is_written() {
    let relay = offering(false);
    let offered = after_ehlo(
        &relay,
        "C: MAIL FROM:<a@x.example> RET=FULL
         S: 555 5.5.4 the parameter RET is not known
         C: MAIL FROM:<a@x.example> RET=ALL
         S: 555 5.5.4 the parameter RET is not known
         C: MAIL FROM:<a@x.example> ENVID=a
         S: 555 5.5.4 the parameter ENVID is not known
         C: MAIL FROM:<a@x.example>
         S: 250 2.1.0 *
         C: RCPT TO:<b@y.example> NOTIFY=DELAY
         S: 555 5.5.4 the parameter NOTIFY is not known
         C: RCPT TO:<b@y.example> ORCPT=none
         S: 555 5.5.4 the parameter ORCPT is not known
         C: QUIT
         S: 221 *",
    )
    .await;
    assert!(!offered);
}
