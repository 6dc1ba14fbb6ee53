//! What is asked of notifications, and what was told.

use super::*;
use crate::mail::{Action, DsnRequest, Notice, Notify, RecipientRequest, Ret};

fn asks(notify: &str, orcpt: &str) -> RecipientRequest {
    let notify = Notify::parse(notify).expect(notify);
    RecipientRequest { notify: Some(notify), orcpt: Some(orcpt.to_owned()), told: Vec::new() }
}

/// One for `b` and `c`, of whom `c` asks for nothing.
fn asking(name: &str) -> NewMail {
    let mut mail = new_mail(name, &["b@x.example", "c@X.example"]);
    mail.envelope.dsn.ret = Some(Ret::Full);
    mail.envelope.dsn.envid = Some("id+201".to_owned());
    mail.envelope.dsn.ask(&address("b@x.example"), asks("DELAY,SUCCESS", "rfc822;B+2B1@x.example"));
    mail
}

fn notice(action: Action) -> Notice {
    Notice { action, at: at(7), dsn: Some(key("DSN")), note: Some("in a digest".to_owned()) }
}

/// As it is read back from where it rests.
async fn found(store: &Opened, place: Place, name: &str) -> DsnRequest {
    store.find(&place, &key(name)).await.expect(name).mail.envelope.dsn
}

pub(in crate::store) async fn what_is_asked_and_told_goes_with_each_recipient(scene: &Scene) {
    let store = scene.open();
    store.at(0).insert(asking("K1")).await.expect("inserted");
    let (b, c) = (address("b@x.example"), address("c@X.example"));
    assert_eq!(found(&store, Place::Spool, "K1").await, asking("K1").envelope.dsn);

    let claimed = claim_one(&store, Place::Spool).await;
    let part = |name: &str, recipient: &Address| {
        let mut mail = claimed.mail.clone();
        mail.key = key(name);
        mail.envelope.recipients = vec![recipient.clone()];
        mail.envelope.dsn.return_path = Some(address("first@sender.example"));
        mail.envelope.dsn.tell(recipient, notice(Action::Delayed));
        Resting { mail, place: Some(temporary()) }
    };
    let parts = vec![part("K1", &c), part("K2", &b)];
    store.at(2).settle(&claimed.claim, &Settlement { parts, ..Settlement::default() }).await.expect("settled");
    let (kept, split) = (Place::Repository(temporary()), Place::Repository(temporary()));
    let (of_c, of_b) = (found(&store, kept, "K1").await, found(&store, split, "K2").await);
    for dsn in [&of_c, &of_b] {
        assert_eq!((dsn.ret, dsn.envid.as_deref()), (Some(Ret::Full), Some("id+201")));
        assert_eq!(dsn.return_path, Some(address("first@sender.example")));
        assert_eq!(dsn.recipients().len(), 1, "that of its own recipient");
    }
    assert_eq!(of_c.of(&c), &RecipientRequest { told: vec![notice(Action::Delayed)], ..RecipientRequest::default() });
    let told =
        RecipientRequest { told: vec![notice(Action::Delayed)], ..asks("DELAY,SUCCESS", "rfc822;B+2B1@x.example") };
    assert_eq!(of_b.of(&b), &told);

    let elsewhere = RepositoryPath::parse("var/mail/elsewhere").expect("a path");
    store.ensure_repositories(std::slice::from_ref(&elsewhere)).await.expect("made");
    store.move_to(&Place::Repository(temporary()), &key("K2"), &elsewhere).await.expect("moved");
    let relay = Respool { processor: "relay".to_owned(), ..Respool::default() };
    store.respool(&Place::Repository(elsewhere), &key("K2"), &relay).await.expect("respooled");
    assert_eq!(found(&store, Place::Spool, "K2").await, of_b);
    store.release(&claim_one(&store, Place::Spool).await.claim).await.expect("released");
    assert_eq!(found(&store, Place::Spool, "K2").await, of_b);
}

pub(in crate::store) async fn a_death_leaves_what_is_asked_and_told(scene: &Scene) {
    let store = scene.open();
    let mut mail = asking("K1");
    mail.envelope.dsn.tell(&address("c@X.example"), notice(Action::Delayed));
    let before = mail.envelope.dsn.clone();
    store.at(0).insert(mail).await.expect("inserted");
    let dying = scene.open();
    let claimed = claim_one(&dying, Place::Spool).await;
    let attempt = dying.at(2).begin_attempt(&claimed.claim, &claimed.mail.attributes, &[]).await.expect("begun");
    let outcomes = [recorded("c@x.example", Outcome::Failed)];
    dying.record(&claimed.claim, attempt, &outcomes, &[], 1000).await.expect("recorded");
    drop(dying);
    store.at(3).reap().await.expect("reaped");
    let left = claim_one_suspect(&store).await.mail;
    assert_eq!((left.recorded.len(), left.envelope.dsn), (1, before));
}
