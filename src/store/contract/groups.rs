//! Failures by cause, whatever is done to the mails.

use super::*;
use crate::mail::{Cause, OTHER_TEXTS};
use crate::store::{FailureGroup, GroupFilter};

fn permanent() -> RepositoryPath {
    RepositoryPath::parse("var/mail/error/remote-delivery/permanent").expect("a path")
}

fn refused(recipient: &str, reply: &str) -> Recorded {
    Recorded {
        code: Some(550),
        reply: Some(format!("550 {reply}")),
        cause: None,
        next_hop: Some("x.example".to_owned()),
        ..recorded(recipient, Outcome::Failed)
    }
}

/// One counted pass of all of `claimed` that ends in `place` with these outcomes.
async fn fail(store: &Opened, claimed: &Claimed, place: RepositoryPath, outcomes: &[Recorded]) {
    let attempt = store.begin_attempt(&claimed.claim, &claimed.mail.attributes, &[]).await.expect("begun");
    store.record(&claimed.claim, attempt, outcomes, &[], 0).await.expect("recorded");
    let parts = vec![Resting { mail: claimed.mail.clone(), place: Some(place) }];
    let settlement = Settlement { parts, attempt: Some(attempt), counted: true, ..Settlement::default() };
    store.settle(&claimed.claim, &settlement).await.expect("settled");
}

/// A new mail whose recipients failed so.
async fn failed(store: &Opened, name: &str, replies: &[(&str, &str)]) {
    let recipients: Vec<_> = replies.iter().map(|(recipient, _)| *recipient).collect();
    store.insert(new_mail(name, &recipients)).await.expect("inserted");
    let claimed = store.claim(&wanted(Place::Spool, None)).await.expect("claimed").remove(0);
    let outcomes: Vec<_> = replies.iter().map(|(recipient, reply)| refused(recipient, reply)).collect();
    fail(store, &claimed, permanent(), &outcomes).await;
}

async fn groups(store: &Opened) -> Vec<FailureGroup> {
    store.groups(&GroupFilter::default(), &Span::of(1000)).await.expect("groups").items
}

/// `segment text: mails unacknowledged`, sorted.
async fn shown(store: &Opened) -> Vec<String> {
    let line = |group: &FailureGroup| {
        let FailureGroup { repository, cause, mails, unacknowledged, .. } = group;
        format!("{} {}: {mails} {unacknowledged}", repository.last_segment(), cause.text)
    };
    let mut lines: Vec<_> = groups(store).await.iter().map(line).collect();
    lines.sort();
    lines
}

pub(in crate::store) async fn a_group_follows_its_mails_in_the_commit_that_changes_them(scene: &Scene) {
    let store = scene.open();
    store.ensure_repositories(&[permanent(), temporary()]).await.expect("made");
    failed(store.at(0), "K1", &[("b@x.example", "no")]).await;
    failed(&store, "K2", &[("b@x.example", "no"), ("c@x.example", "full")]).await;
    assert_eq!(shown(&store).await, ["permanent full: 1 1", "permanent no: 2 2"]);
    let place = Place::Repository(permanent());
    let note = Act::Acknowledge { by: "anna".into(), note: "known".into() };
    for again in 0..2 {
        store.act_within(&place, &key("K2"), note.clone(), None).await.expect("acknowledged");
        assert_eq!(shown(&store).await, ["permanent full: 1 0", "permanent no: 2 1"], "{again}");
    }
    store.move_to(&place, &key("K2"), &temporary()).await.expect("moved");
    assert_eq!(shown(&store).await, ["permanent no: 1 1", "temporary full: 1 0", "temporary no: 1 0"]);
    let claimed = claim_one(&store, Place::Repository(temporary())).await;
    fail(&store, &claimed, temporary(), &[refused("b@x.example", "no"), refused("c@x.example", "no")]).await;
    assert_eq!(shown(&store).await, ["permanent no: 1 1", "temporary no: 1 1"], "failed anew, and nobody took note");
    store.respool(&Place::Repository(temporary()), &key("K2"), &Respool::default()).await.expect("respooled");
    assert_eq!(shown(&store).await, ["permanent no: 1 1"]);
    store.remove(&place, &key("K1")).await.expect("removed");
    assert_eq!(shown(&store).await, [] as [&str; 0]);
    let id = Cause::of(&refused("b@x.example", "no")).expect("a cause").id();
    let known = GroupFilter { id: Some(id), ..GroupFilter::default() };
    let known = store.groups(&known, &Span::of(10)).await.expect("groups").items;
    assert_eq!(known.iter().map(|group| group.mails).collect::<Vec<_>>(), [0, 0], "known, though empty");
}

pub(in crate::store) async fn who_was_not_tried_keeps_his_cause(scene: &Scene) {
    let store = scene.open();
    failed(store.at(0), "K1", &[("b@x.example", "no"), ("c@x.example", "full")]).await;
    let before = shown(&store).await;
    let claimed = claim_one(&store, Place::Repository(permanent())).await;
    let attempt = store.at(1).begin_attempt(&claimed.claim, &claimed.mail.attributes, &[]).await.expect("begun");
    let time = recorded("b@x.example", Outcome::Deferred).time;
    let not_tried = |recipient: &Address| Recorded::not_tried(recipient.clone(), &"the run was cancelled", time);
    let outcomes = claimed.mail.envelope.recipients.iter().map(not_tried).collect();
    let parts = vec![Resting { mail: claimed.mail.clone(), place: None }];
    let settlement = Settlement { parts, attempt: Some(attempt), counted: false, outcomes, ..Settlement::default() };
    store.settle(&claimed.claim, &settlement).await.expect("settled");
    assert_eq!(shown(&store).await, before);
    let last = store.last_outcomes(std::slice::from_ref(&claimed.mail)).await.expect("read").remove(0);
    assert!(last.iter().all(|one| one.as_ref().is_some_and(|one| one.outcome == Outcome::Failed)), "{last:?}");
    assert_eq!(store.attempts_of(&claimed.mail).await.expect("read").len(), 2, "the record has it");
}

pub(in crate::store) async fn a_death_leaves_a_mail_in_the_groups_of_those_it_still_owes(scene: &Scene) {
    let (store, dead) = (scene.open(), scene.open());
    failed(dead.at(0), "K1", &[("b@x.example", "no"), ("c@x.example", "full")]).await;
    let claimed = claim_one(&dead, Place::Repository(permanent())).await;
    let attempt = dead.begin_attempt(&claimed.claim, &claimed.mail.attributes, &[]).await.expect("begun");
    let delivered = recorded("b@x.example", Outcome::Delivered);
    dead.record(&claimed.claim, attempt, &[delivered], &[], 0).await.expect("recorded");
    drop(dead);
    store.reap().await.expect("reaped");
    let groups = groups(&store).await;
    assert_eq!(groups.len(), 1, "{groups:?}");
    assert!(!groups[0].cause.text.starts_with("no"), "{groups:?}");
}

pub(in crate::store) async fn a_hop_and_code_have_a_hundred_texts_and_then_others(scene: &Scene) {
    let store = scene.open();
    let letter = |n: u8| char::from(b'a' + n);
    let texts: Vec<_> = (0..120).map(|n| format!("no {}{}", letter(n / 26), letter(n % 26))).collect();
    store.at(0);
    for (number, text) in texts.iter().enumerate() {
        failed(&store, &format!("K{number}"), &[("b@x.example", text)]).await;
    }
    let groups = groups(&store).await;
    assert_eq!((groups.len(), groups[0].mails, groups[0].cause.text.as_str()), (101, 20, OTHER_TEXTS));
}

pub(in crate::store) async fn pages_of_groups_give_each_once_the_largest_first(scene: &Scene) {
    let store = scene.open();
    store.at(0);
    for (number, text) in ["axe", "bee", "bee", "cat", "cat", "cat", "dog"].iter().enumerate() {
        failed(&store, &format!("K{number}"), &[("b@x.example", text)]).await;
    }
    let (mut span, mut texts) = (Span::of(2), Vec::new());
    loop {
        let page = store.groups(&GroupFilter::default(), &span).await.expect("groups");
        assert!(page.items.len() <= 2);
        texts.extend(page.items.into_iter().map(|group| group.cause.text));
        let Some(next) = page.next else { break };
        span = span.after(Some(next));
    }
    let sorted = {
        texts[2..].sort();
        texts
    };
    assert_eq!(sorted, ["cat", "bee", "axe", "dog"]);
    let strange = Span::of(2).after("1-2-3".parse().ok());
    assert!(store.groups(&GroupFilter::default(), &strange).await.is_err(), "no cursor of ours");
}

pub(in crate::store) async fn arrivals_are_counted_by_day_and_empty_groups_go_after_their_time(scene: &Scene) {
    const DAY: i64 = 86_400;
    let store = scene.open();
    for (name, day) in [("K1", 0), ("K2", 1), ("K3", 1)] {
        store.at(day * DAY);
        failed(&store, name, &[("b@x.example", "no")]).await;
    }
    let days = groups(store.at(2 * DAY)).await[0].days;
    assert_eq!((days[13], days[12], days[11], days[..11].iter().sum::<u64>()), (0, 2, 1, 0));
    assert_eq!(groups(store.at(20 * DAY)).await[0].days, [0; 14]);
    for name in ["K1", "K2", "K3"] {
        store.remove(&Place::Repository(permanent()), &key(name)).await.expect("removed");
    }
    while store.at(60 * DAY).purge_records(Duration::from_hours(30 * 24), 100).await.expect("purged") > 0 {}
    let id = Cause::of(&refused("b@x.example", "no")).expect("a cause").id();
    let known = GroupFilter { id: Some(id), ..GroupFilter::default() };
    assert!(store.groups(&known, &Span::of(10)).await.expect("groups").items.is_empty(), "nobody knows it any more");
}
