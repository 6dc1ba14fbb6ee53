//! Looking: pages, horizons, sums.

use super::*;

pub(in crate::store) async fn what_comes_to_rest_stands_behind_the_newest(scene: &Scene) {
    let store = scene.open();
    insert(&store, "K1", &["b@x.example"]).await;
    let within = Some(store.horizon().await.expect("a horizon"));
    insert(&store, "K2", &["b@x.example"]).await;
    let mut pages = Pages::new(&*store, Place::Spool, MailFilter { within, ..MailFilter::default() });
    let page = pages.next().await.expect("read").expect("a page");
    assert_eq!(page.iter().map(|listed| listed.mail.key.to_string()).collect::<Vec<_>>(), ["K1"]);
    assert!(pages.next().await.expect("read").is_none());
}

pub(in crate::store) async fn pages_are_filtered_and_in_order(scene: &Scene) {
    let store = scene.open();
    for n in 0..7 {
        let recipient = if n % 2 == 0 { "even@x.example" } else { "odd@y_z.example" };
        insert(&store, &format!("K{n}"), &[recipient]).await;
    }
    let all = MailFilter::default();
    let first = store.list(&Place::Spool, &all, &Span::of(4)).await.expect("a page");
    let rest = Span::of(4).after(first.next.clone());
    let second = store.list(&Place::Spool, &all, &rest).await.expect("a page");
    assert!(first.next.is_some() && second.next.is_none());
    let keys: Vec<_> = first.items.iter().chain(&second.items).map(|l| l.mail.key.to_string()).collect();
    assert_eq!(keys, ["K0", "K1", "K2", "K3", "K4", "K5", "K6"]);
    for (mails, key) in [(0, Some("K0")), (1, Some("K1")), (6, Some("K6")), (7, None), (8, None)] {
        let next = match store.behind(&Place::Spool, mails).await.expect("looked") {
            Some(cursor) => store.list(&Place::Spool, &all, &Span::of(1).after(Some(cursor))).await.expect("a page"),
            None => Page::default(),
        };
        assert_eq!(next.items.first().map(|listed| listed.mail.key.as_str()), key, "behind {mails}");
    }
    let count = |filter: MailFilter| {
        let store = store.clone();
        async move { store.list(&Place::Spool, &filter, &Span::of(100)).await.expect("a page").items.len() }
    };
    let with = |text: &str| Some(text.to_owned());
    assert_eq!(count(MailFilter { recipient: with("EVEN@x.example"), ..all.clone() }).await, 4);
    assert_eq!(count(MailFilter { recipient: with("*@y_z.example"), ..all.clone() }).await, 3);
    assert_eq!(count(MailFilter { domain: with("yaz.example"), ..all.clone() }).await, 0, "_ is no wildcard");
    assert_eq!(count(MailFilter { domain: with("%"), ..all.clone() }).await, 0, "% is no wildcard");
    assert_eq!(count(MailFilter { sender: with("A@sender.example"), passes: Some(0), ..all.clone() }).await, 7);
    assert_eq!(count(MailFilter { code: Some(550), ..all.clone() }).await, 0);
    assert_eq!(count(MailFilter { client: with("192.0.2.1"), ..all.clone() }).await, 0);
    assert_eq!(
        count(MailFilter { before: Some(at(0) + TimeDelta::seconds(1)), after: Some(at(-1)), ..all.clone() }).await,
        7
    );
    insert(&store, "U1", &["\u{e9}va@B\u{fc}cher.example"]).await;
    for domain in ["b\u{fc}cher.example", "XN--BCHER-KVA.example", "B\u{dc}CHER.EXAMPLE"] {
        assert_eq!(count(MailFilter { domain: with(domain), ..all.clone() }).await, 1, "{domain}");
        let recipient = with(&format!("\u{c9}VA@{domain}"));
        assert_eq!(count(MailFilter { recipient, ..all.clone() }).await, 1, "{domain}");
    }
}

pub(in crate::store) async fn the_last_outcome_of_each_recipient_is_found_over_splits(scene: &Scene) {
    let store = scene.open();
    insert(&store, "K1", &["b@x.example", "c@x.example"]).await;
    let mut claimed = claim_one(&store, Place::Spool).await;
    let first = store.at(2).begin_attempt(&claimed.claim, &claimed.mail.attributes, &[]).await.expect("begun");
    let both = [recorded("b@x.example", Outcome::Deferred), recorded("c@x.example", Outcome::Failed)];
    store.record(&claimed.claim, first, &both, &[], 1000).await.expect("recorded");
    let mut failed = claimed.mail.clone();
    (failed.key, failed.envelope.recipients) = (key("K2"), vec![address("c@x.example")]);
    claimed.mail.envelope.recipients = vec![address("b@x.example")];
    let part = |mail: &Mail| Resting { mail: mail.clone(), place: Some(temporary()) };
    let parts = vec![part(&claimed.mail), part(&failed)];
    let settlement = Settlement { parts, attempt: Some(first), counted: true, ..Settlement::default() };
    store.at(3).settle(&claimed.claim, &settlement).await.expect("settled");
    let claimed = claim_one_of(&store, "K1").await;
    let second = store.at(4).begin_attempt(&claimed.claim, &claimed.mail.attributes, &[]).await.expect("begun");
    let later = Recorded { code: Some(452), ..recorded("b@x.example", Outcome::Deferred) };
    store.record(&claimed.claim, second, &[later], &[], 1000).await.expect("recorded");
    insert(&store, "K3", &["d@x.example", "e@x.example"]).await;
    let never = store.find(&Place::Spool, &key("K3")).await.expect("there").mail;
    let last = store.last_outcomes(&[claimed.mail, failed, never]).await.expect("read");
    let last: Vec<Vec<_>> =
        last.iter().map(|of| of.iter().map(|one| one.as_ref().map(|one| (one.outcome, one.code))).collect()).collect();
    assert_eq!(last[0], [Some((Outcome::Deferred, Some(452)))]);
    assert_eq!(last[1], [Some((Outcome::Failed, None))]);
    assert_eq!(last[2], [None, None], "each has its place, also where nobody knows of him");
}

pub(in crate::store) async fn nothing_is_missed_or_met_twice_while_others_write(scene: &Scene) {
    let reader = scene.open();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..3 {
        let store = scene.open();
        writers.spawn(async move {
            for n in 0..30 {
                insert(&store, &format!("W{writer}N{n}"), &["b@x.example"]).await;
            }
        });
    }
    let (mut met, mut beyond) = (Vec::new(), None);
    loop {
        let all_written = writers.is_empty();
        let within = reader.horizon().await.expect("a horizon");
        let filter = MailFilter { beyond: beyond.take(), within: Some(within.clone()), ..MailFilter::default() };
        let mut span = Some(Span::of(7));
        while let Some(wanted) = span.take() {
            let page = reader.list(&Place::Spool, &filter, &wanted).await.expect("a page");
            span = page.next.map(|next| Span::of(7).after(Some(next)));
            met.extend(page.items.into_iter().map(|listed| listed.mail.key));
        }
        beyond = Some(within);
        if all_written {
            break;
        }
        while writers.try_join_next().is_some() {}
        tokio::task::yield_now().await;
    }
    let once: std::collections::BTreeSet<_> = met.iter().collect();
    assert_eq!((met.len(), once.len()), (90, 90));
}

pub(in crate::store) async fn a_listing_goes_either_way_and_says_how_far_it_looked(scene: &Scene) {
    let store = scene.open();
    for n in 0..6 {
        let recipient = if n == 4 { "rare@x.example" } else { "b@x.example" };
        store.at(n).insert(new_mail(&format!("K{n}"), &[recipient])).await.expect("inserted");
    }
    let keys = |page: &Page<Listed>| page.items.iter().map(|one| one.mail.key.to_string()).collect::<Vec<_>>();
    let all = MailFilter::default();
    let first = store.list(&Place::Spool, &all, &Span::of(4).newest_first()).await.expect("a page");
    assert_eq!(keys(&first), ["K5", "K4", "K3", "K2"]);
    let rest = Span::of(4).newest_first().after(first.next);
    let second = store.list(&Place::Spool, &all, &rest).await.expect("a page");
    assert_eq!((keys(&second), second.next), (vec!["K1".to_owned(), "K0".to_owned()], None));
    let rare = MailFilter { recipient: Some("rare@x.example".to_owned()), ..MailFilter::default() };
    let short = store.list(&Place::Spool, &rare, &Span::of(9).look(3)).await.expect("a page");
    assert_eq!((keys(&short), short.searched_to), (Vec::new(), Some(at(2))), "three were looked at");
    let on = store.list(&Place::Spool, &rare, &Span::of(9).look(3).after(short.next)).await.expect("a page");
    assert_eq!((keys(&on), on.next.is_none()), (vec!["K4".to_owned()], true));
    let foreign = Span::of(1).after(Some("abc".parse().expect("it may be one")));
    assert!(matches!(store.list(&Place::Spool, &all, &foreign).await, Err(Error::NotOurs(_))));
}

pub(in crate::store) async fn sums_are_those_of_the_mails_whatever_became_of_them(scene: &Scene) {
    let store = scene.open();
    store.ensure_repositories(&[temporary()]).await.expect("made");
    for n in 0..4 {
        insert(&store, &format!("K{n}"), &["b@x.example", "c@x.example"]).await;
    }
    let mut claimed = store.at(1).claim(&wanted(Place::Spool, None)).await.expect("claimed");
    for one in &mut claimed[..3] {
        one.mail.attributes.increment(attribute::AT_MOST_EXECUTIONS);
    }
    pass(&store, &claimed[0], 2).await;
    let mut part = claimed[1].mail.clone();
    (part.key, part.envelope.recipients) = (key("P1"), vec![address("c@x.example")]);
    claimed[1].mail.envelope.recipients.truncate(1);
    let rest = |mail: &Mail| Resting { mail: mail.clone(), place: Some(temporary()) };
    let split = Settlement { parts: vec![rest(&claimed[1].mail), rest(&part)], ..Settlement::default() };
    store.settle(&claimed[1].claim, &split).await.expect("settled");
    store.settle(&claimed[2].claim, &Settlement::default()).await.expect("settled");
    // One is in hand still, and counts where it was taken from.
    let place = Place::Repository(temporary());
    let note = Act::Acknowledge { by: "anna".into(), note: "known".into() };
    store.act_within(&place, &key("P1"), note, None).await.expect("noted");
    let of = |mails, unacknowledged, by_passes: &[(u32, u64)]| Sums {
        mails,
        octets: 20 * mails,
        unacknowledged,
        by_passes: by_passes.to_vec(),
    };
    let expected = vec![(Place::Spool, of(1, 1, &[(0, 1)])), (place.clone(), of(3, 2, &[(1, 3)]))];
    assert_eq!(store.sums().await.expect("sums"), expected);
    // A part is as old as what it was split off from; the hour is that of acceptance.
    let hour = at(-800);
    assert_eq!(hour.timestamp() % 3600, 0);
    assert_eq!(store.accepted(&temporary()).await.expect("hours"), [(hour, 3)]);
    let relay =
        Respool { processor: "relay".into(), reset: vec![attribute::AT_MOST_EXECUTIONS.into()], ..Respool::default() };
    store.respool(&place, &key("P1"), &relay).await.expect("respooled");
    store.remove(&place, &key("K0")).await.expect("removed");
    assert_eq!(scene.open().at(5).reap().await.expect("nobody died"), Reaped::default());
    let expected = vec![(Place::Spool, of(2, 2, &[(0, 2)])), (place.clone(), of(1, 1, &[(1, 1)]))];
    assert_eq!(store.sums().await.expect("sums"), expected);
    assert_eq!(store.accepted(&temporary()).await.expect("hours"), [(hour, 1)]);
    let sizes = (store.size(&Place::Spool).await.expect("size"), store.size(&place).await.expect("size"));
    assert_eq!(sizes, (2, 1));
    let last = if store.find(&place, &key("K1")).await.is_ok() { "K1" } else { "P1" };
    store.at(7200).remove(&place, &key(last)).await.expect("removed");
    assert_eq!(store.accepted(&temporary()).await.expect("hours"), [], "an hour without mails has no row");
}

pub(in crate::store) async fn outcomes_are_counted_by_next_hop_and_in_all(scene: &Scene) {
    let store = scene.open();
    insert(&store, "K1", &["b@x.example", "c@x.example", "d@x.example"]).await;
    let claimed = claim_one(&store, Place::Spool).await;
    let attempt = store.at(2).begin_attempt(&claimed.claim, &claimed.mail.attributes, &[]).await.expect("begun");
    let said = |recipient: &str, outcome, code| Recorded {
        code: Some(code),
        next_hop: Some("x.example".to_owned()),
        ..recorded(recipient, outcome)
    };
    let first = [said("b@x.example", Outcome::Delivered, 250), said("c@x.example", Outcome::Deferred, 451)];
    store.at(3).record(&claimed.claim, attempt, &first, &[], 1000).await.expect("recorded");
    let settlement = Settlement {
        attempt: Some(attempt),
        counted: true,
        outcomes: vec![recorded("d@x.example", Outcome::Failed)],
        ..Settlement::default()
    };
    store.at(4).settle(&claimed.claim, &settlement).await.expect("settled");
    let totals = store.outcome_totals().await.expect("totals");
    let totals: Vec<_> =
        totals.iter().map(|total| (total.outcome, total.stage, total.class, total.recipients)).collect();
    assert_eq!(
        totals,
        [
            (Outcome::Deferred, Stage::Rcpt, 4, 1),
            (Outcome::Delivered, Stage::Rcpt, 2, 1),
            (Outcome::Failed, Stage::Rcpt, 0, 1),
        ]
    );
    let hops = store.at(5).hops(24).await.expect("hops");
    let told: Vec<_> = hops.iter().map(|hop| (hop.next_hop.as_str(), hop.recipients)).collect();
    let only = |delivered, deferred, failed| Recipients { delivered, deferred, failed };
    assert_eq!(told, [("", only(0, 0, 1)), ("x.example", only(1, 1, 0))]);
    assert_eq!(hops[1].last.recipient, address("c@x.example"), "the last one");
    assert!(store.at(30 * 3600).hops(24).await.expect("hops").is_empty());
}
