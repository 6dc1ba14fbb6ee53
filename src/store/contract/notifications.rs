//! Notifications: how many are born, gathered, held back.

use super::*;

/// Settles one mail of the spool, which bears these.
async fn bear(store: &Opened, now: i64, born: Vec<NewDsn>) -> Vec<Fate> {
    let name = format!("M{now}-{}", born[0].mail.key);
    store.at(now).insert(new_mail(&name, &["b@x.example"])).await.expect("inserted");
    let wanted = Wanted { only: Some(vec![key(&name)].into()), ..wanted(Place::Spool, None) };
    let claimed = store.at(now).claim(&wanted).await.expect("claimed").remove(0);
    let settlement = Settlement { born, ..Settlement::default() };
    store.at(now).settle(&claimed.claim, &settlement).await.expect("settled")
}

fn limited(name: &str, sender: &str, per_sender: u32, total: u32) -> NewDsn {
    NewDsn { limits: DsnLimits { per_sender, total }, ..new_dsn(name, sender) }
}

pub(in crate::store) async fn what_is_too_much_for_one_sender_is_gathered_and_ends_in_one_mail(scene: &Scene) {
    let store = scene.open();
    for n in 0..2 {
        assert_eq!(bear(&store, n, vec![limited(&format!("D{n}"), "a@y.example", 2, 100)]).await, [Fate::Born]);
    }
    // Over a restart too.
    drop(store);
    let store = scene.open();
    for n in 2..5 {
        assert_eq!(bear(&store, n, vec![limited(&format!("D{n}"), "a@Y.example", 2, 100)]).await, [Fate::Gathered]);
    }
    assert_eq!(bear(&store, 5, vec![limited("O1", "other@y.example", 2, 100)]).await, [Fate::Born]);
    assert_eq!(store.at(3601).due_digest().await.expect("read"), None, "an hour after the first");
    let digest = store.at(3602).due_digest().await.expect("read").expect("due");
    assert_eq!((digest.key.as_str(), digest.told.len(), digest.more), ("D2", 3, 0));
    assert_eq!(digest.sender.to_string(), "a@Y.example");
    let mail = || Some(new_mail("D2", &["a@y.example"]));
    assert!(store.at(3602).end_digest(&digest, mail()).await.expect("ended"));
    assert!(!store.at(3602).end_digest(&digest, mail()).await.expect("ended"), "it is born once");
    assert_eq!(store.at(9999).due_digest().await.expect("read"), None);
    assert!(store.find(&Place::Spool, &key("D2")).await.is_ok());
    assert_eq!(bear(&store, 3602, vec![limited("D6", "a@y.example", 2, 100)]).await, [Fate::Born], "an hour is over");
    let counts = store.dsn_counts().await.expect("read");
    assert_eq!(counts.by_action, [("digest".to_owned(), 1), ("failed".to_owned(), 4)]);
    assert_eq!(counts.held_lately, 0);
}

pub(in crate::store) async fn what_is_too_much_in_all_is_held_back_and_counted(scene: &Scene) {
    let store = scene.open();
    let one = |n: i64| limited(&format!("D{n}"), &format!("a{n}@y.example"), 2, 3);
    for n in 0..3 {
        assert_eq!(bear(&store, n, vec![one(n)]).await, [Fate::Born]);
    }
    for n in 3..6 {
        assert_eq!(bear(&store, n, vec![one(n)]).await, [Fate::HeldBack]);
    }
    let counts = store.at(6).dsn_counts().await.expect("read");
    assert_eq!(counts.by_action, [("failed".to_owned(), 3), ("held".to_owned(), 3)]);
    assert_eq!(counts.held_lately, 3);
    assert_eq!(bear(&store, 3601, vec![one(7)]).await, [Fate::Born]);
    let counts = store.at(27 * 3600).dsn_counts().await.expect("read");
    assert_eq!(counts.held_lately, 0, "of a day");
}

pub(in crate::store) async fn notes_agree_with_what_was_told(scene: &Scene) {
    let store = scene.open();
    for (n, limits, dsn, note) in [
        (1, (1, 1), Some("D1"), None),
        (2, (1, 9), Some("D2"), None),
        (3, (1, 9), Some("D2"), None),
        (4, (9, 1), None, Some("dsn.total")),
    ] {
        insert(&store, &format!("K{n}"), &["b@x.example"]).await;
        let mut claimed = claim_one(&store, Place::Spool).await;
        let born = limited(&format!("D{n}"), "a@y.example", limits.0, limits.1);
        let notice = Notice { action: Action::Failed, at: at(1), dsn: Some(born.mail.key.clone()), note: None };
        claimed.mail.envelope.dsn.tell(&address("b@x.example"), notice);
        let parts = vec![Resting { mail: claimed.mail.clone(), place: Some(temporary()) }];
        let settlement = Settlement { parts, born: vec![born], ..Settlement::default() };
        store.at(1).settle(&claimed.claim, &settlement).await.expect("settled");
        let kept = store.find(&Place::Repository(temporary()), &key(&format!("K{n}"))).await.expect("kept").mail;
        let told = &kept.envelope.dsn.of(&address("b@x.example")).told[0];
        assert_eq!(told.dsn.as_ref().map(MailKey::as_str), dsn, "{n}");
        assert_eq!(told.note.as_deref().is_some_and(|told| told.contains(note.unwrap_or("?"))), note.is_some());
        let spool = store.at(1).claim(&wanted(Place::Spool, None)).await.expect("claimed");
        for claimed in spool {
            store.settle(&claimed.claim, &Settlement::default()).await.expect("settled");
        }
    }
}
