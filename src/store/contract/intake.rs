//! Mail comes in.

use super::*;

pub(in crate::store) async fn what_was_inserted_is_claimed_settled_and_gone(scene: &Scene) {
    let store = scene.open();
    insert(&store, "K1", &["b@x.example"]).await;
    assert_eq!(store.size(&Place::Spool).await.expect("size"), 1);
    let claimed = claim_one(&store, Place::Spool).await;
    assert_eq!(claimed.mail.envelope.recipients, [address("b@x.example")]);
    assert_eq!(store.content(claimed.mail.message, 0).await.expect("read"), b"Subject: x\r\n\r\nbody\r\n"[..]);
    store.at(2).settle(&claimed.claim, &Settlement::default()).await.expect("settled");
    assert_eq!(store.size(&Place::Spool).await.expect("size"), 0);
    assert!(store.content(claimed.mail.message, 0).await.is_err(), "the message went with its mail");
}

pub(in crate::store) async fn a_message_written_ahead_is_read_back_octet_for_octet(scene: &Scene) {
    let store = scene.open();
    let rows: Vec<Vec<u8>> = (0..20_u8).map(|n| vec![n; crate::mail::CHUNK_BYTES]).collect();
    let mut message = None;
    for (number, row) in rows.iter().enumerate() {
        let number = u32::try_from(number).expect("small");
        message = Some(store.at(0).write_chunk(message, number, Bytes::from(row.clone())).await.expect("written"));
    }
    let message = message.expect("a message");
    let mail = NewMail { message: NewMessage::Written(message), ..new_mail("K1", &["b@x.example"]) };
    store.at(0).insert(mail).await.expect("inserted");
    let mut read = Vec::new();
    for number in 0.. {
        let row = store.content(message, number).await.expect("read");
        if row.is_empty() {
            break;
        }
        read.extend(row);
    }
    assert!(read == rows.concat());
    // A large message is deleted in steps; none of it stays.
    let claimed = claim_one(&store, Place::Spool).await;
    store.at(2).settle(&claimed.claim, &Settlement::default()).await.expect("settled");
    while store.tidy().await.expect("tidied") {}
    assert!(store.content(message, 19).await.is_err());
}

pub(in crate::store) async fn a_mail_that_comes_in_in_hand_is_what_a_claim_would_give(scene: &Scene) {
    let (store, other) = (scene.open(), scene.open());
    let (take, taken) = std::sync::mpsc::channel();
    let into = |name: &str| {
        let (take, mail) = (take.clone(), new_mail(name, &["b@x.example", "c@x.example"]));
        (mail, Box::new(move |claimed| take.send(claimed).expect("taken")))
    };
    let (mail, then) = into("K1");
    store.at(1).insert_in_hand(mail, then).await.expect("inserted");
    let in_hand = taken.try_recv().expect("there with the answer");
    let beside = other.claim(&wanted(Place::Spool, None)).await.expect("claimed");
    assert!(beside.is_empty(), "nobody else has it");
    assert_eq!(other.size(&Place::Spool).await.expect("size"), 1, "it counts");

    store.release(&in_hand.claim).await.expect("it is ours");
    let claimed = claim_one(&store, Place::Spool).await;
    assert_eq!(claimed.mail, in_hand.mail);
    assert!(store.release(&in_hand.claim).await.is_err(), "the claim is another one");
    store.settle(&claimed.claim, &Settlement::default()).await.expect("settled");

    let (mail, then) = into("K1");
    store.insert_in_hand(mail, then).await.expect("the key is free again");
    taken.try_recv().expect("in hand");
    let (again, then) = into("K1");
    store.insert_in_hand(again, then).await.expect_err("a key is there once");
    assert!(taken.try_recv().is_err(), "what was not stored is not given");
    drop(store);
    assert_eq!(other.reap().await.expect("reaped").mails, 1, "it is freed as any mail in hand is");
}

pub(in crate::store) async fn an_import_is_taken_once(scene: &Scene) {
    let store = scene.open();
    let mail = |name: &str| NewMail { import_digest: Some("d".into()), ..new_mail(name, &["b@x.example"]) };
    store.at(0).insert(mail("K1")).await.expect("inserted");
    let again = store.at(0).insert(mail("K2")).await;
    assert!(matches!(again, Err(Error::ImportedBefore(key)) if key.as_str() == "K1"));
    assert_eq!(store.size(&Place::Spool).await.expect("size"), 1);
}

pub(in crate::store) async fn who_waits_for_mail_is_told_of_it(scene: &Scene) {
    let store = scene.open();
    let mut arrivals = store.arrivals();
    let told =
        async |arrivals: &mut Arrivals| tokio::time::timeout(Duration::from_millis(50), arrivals.next()).await.is_ok();
    assert!(!told(&mut arrivals).await, "nothing came yet");
    insert(&store, "K1", &["b@x.example"]).await;
    assert!(told(&mut arrivals).await && !told(&mut arrivals).await, "once for one");
    defer(&store, &claim_one(&store, Place::Spool).await, None, 2).await;
    assert!(!told(&mut arrivals).await, "it went elsewhere");
    let relay = Respool { processor: "relay".to_owned(), ..Respool::default() };
    store.respool(&Place::Repository(temporary()), &key("K1"), &relay).await.expect("respooled");
    assert!(told(&mut arrivals).await);
    let claimed = claim_one(&store, Place::Spool).await;
    let born = Settlement { born: vec![new_dsn("K2", "a@x.example")], ..Settlement::default() };
    store.settle(&claimed.claim, &born).await.expect("settled");
    assert!(told(&mut arrivals).await, "a settlement bears mail too");
}

pub(in crate::store) async fn who_brought_a_mail_goes_with_all_its_parts(scene: &Scene) {
    let store = scene.open();
    let client = Some("192.0.2.7".parse().expect("an address"));
    let mail = NewMail { client, ..new_mail("K1", &["b@x.example", "c@x.example"]) };
    store.insert(mail).await.expect("inserted");
    let claimed = claim_one(&store, Place::Spool).await;
    let mut other = claimed.mail.clone();
    (other.key, other.envelope.recipients) = (key("K2"), vec![address("c@x.example")]);
    let rest = |mail: &Mail| Resting { mail: mail.clone(), place: Some(temporary()) };
    let settlement = Settlement { parts: vec![rest(&claimed.mail), rest(&other)], ..Settlement::default() };
    store.settle(&claimed.claim, &settlement).await.expect("settled");
    for name in ["K1", "K2"] {
        let listed = store.find(&Place::Repository(temporary()), &key(name)).await.expect("found");
        assert_eq!(listed.mail.client, client, "{name}");
    }
}
