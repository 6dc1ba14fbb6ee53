//! The record of mails that were split off, by their own keys.

use super::*;

/// Mails with what is recorded of them, in a scene.
struct Record<'a> {
    store: &'a Opened,
}

impl Record<'_> {
    /// One attempt of `name` at `now`, after which the parts rest in `temporary`; the first keeps the key.
    async fn attempt(&self, name: &str, now: i64, outcomes: &[(&str, Outcome)], parts: &[(&str, &[&str])]) {
        self.store.ensure_repositories(&[temporary()]).await.expect("made");
        let only = Some(Arc::from([key(name)]));
        let mut claimed = Vec::new();
        for from in [Place::Spool, Place::Repository(temporary())] {
            let wanted = Wanted { only: only.clone(), ..wanted(from, None) };
            claimed.extend(self.store.at(now).claim(&wanted).await.expect("claimed"));
        }
        let Claimed { claim, mail, .. } = claimed.remove(0);
        let attempt = self.store.at(now).begin_attempt(&claim, &mail.attributes, &[]).await.expect("begun");
        let outcomes: Vec<_> = outcomes.iter().map(|(to, outcome)| recorded(to, *outcome)).collect();
        let part = |(name, recipients): &(&str, &[&str])| {
            let mut mail = mail.clone();
            mail.origin = (key(name) != claim.key).then(|| claim.key.clone());
            mail.key = key(name);
            mail.envelope.recipients = recipients.iter().map(|one| address(one)).collect();
            Resting { mail, place: Some(temporary()) }
        };
        let parts = parts.iter().map(part).collect();
        let settlement = Settlement { parts, attempt: Some(attempt), counted: true, outcomes, ..Settlement::default() };
        self.store.at(now).settle(&claim, &settlement).await.expect("settled");
    }

    /// What is found by a key: for each attempt its mail, number and recipients.
    async fn by_key(&self, name: &str) -> Vec<String> {
        let filter = AttemptFilter { key: Some(key(name)), ..AttemptFilter::default() };
        self.found(&filter).await
    }

    async fn found(&self, filter: &AttemptFilter) -> Vec<String> {
        let oldest = self.store.attempts(filter, &Span::of(50)).await.expect("read").items;
        let mut newest = self.store.attempts(filter, &Span::of(50).newest_first()).await.expect("read").items;
        newest.reverse();
        assert_eq!(oldest, newest);
        let words = |attempt: &crate::mail::Attempt| {
            let to = attempt.recipients.iter().map(|one| one.recipient.local_part().to_string());
            format!("{}/{} {}", attempt.key, attempt.number, to.collect::<String>())
        };
        oldest.iter().map(words).collect()
    }

    async fn remove(&self, name: &str, now: i64) {
        self.store.at(now).remove(&Place::Repository(temporary()), &key(name)).await.expect("removed");
    }

    /// Everything that is older than ten seconds goes.
    async fn purge(&self, now: i64) {
        while self.store.at(now).purge_records(Duration::from_secs(10), 3).await.expect("purged") > 0 {}
    }
}

const B: &str = "b@x.example";
const C: &str = "c@x.example";
const D: &str = "d@x.example";

/// K1 for b, c and d; K2 with c and d split off from it; K3 with d from that.
async fn twice_split(store: &Opened) -> Record<'_> {
    let record = Record { store };
    insert(store, "K1", &[B, C, D]).await;
    let all = [(B, Outcome::Deferred), (C, Outcome::Failed), (D, Outcome::Failed)];
    record.attempt("K1", 2, &all, &[("K1", &[B]), ("K2", &[C, D])]).await;
    record.attempt("K1", 3, &[(B, Outcome::Deferred)], &[("K1", &[B])]).await;
    record.attempt("K2", 4, &all[1..], &[("K2", &[C]), ("K3", &[D])]).await;
    record.attempt("K2", 5, &all[1..2], &[("K2", &[C])]).await;
    record
}

pub(in crate::store) async fn the_record_of_a_split_mail_is_found_by_each_key(scene: &Scene) {
    let store = scene.open();
    let record = twice_split(&store).await;
    let (first, second) = (["K1/1 bcd", "K1/2 b"], ["K1/1 cd", "K2/2 cd", "K2/3 c"]);
    let third = ["K1/1 d", "K2/2 d"];
    assert_eq!(record.by_key("K1").await, first);
    assert_eq!(record.by_key("K2").await, second);
    assert_eq!(record.by_key("K3").await, third);
    record.attempt("K3", 6, &[(D, Outcome::Delivered)], &[]).await;
    record.remove("K2", 7).await;
    record.remove("K1", 7).await;
    assert_eq!(record.by_key("K1").await, first, "gone, they are found as before");
    assert_eq!(record.by_key("K2").await, second);
    assert_eq!(record.by_key("K3").await, ["K1/1 d", "K2/2 d", "K3/3 d"]);
    let failed =
        |name| AttemptFilter { key: Some(key(name)), outcome: Some(Outcome::Failed), ..AttemptFilter::default() };
    assert_eq!(record.found(&failed("K1")).await, ["K1/1 bcd"]);
    assert_eq!(record.found(&failed("K3")).await, third);
    let of_another = AttemptFilter { recipient: Some(B.to_owned()), ..failed("K3") };
    assert!(record.found(&of_another).await.is_empty(), "b was never of it");
    let lineage = |origin: Option<&str>, parts: &[&str]| Lineage {
        origin: origin.map(key),
        parts: parts.iter().map(|one| key(one)).collect(),
    };
    assert_eq!(store.lineage_of(&key("K1")).await.expect("read"), lineage(None, &["K2"]));
    assert_eq!(store.lineage_of(&key("K2")).await.expect("read"), lineage(Some("K1"), &["K3"]));
    assert_eq!(store.lineage_of(&key("K3")).await.expect("read"), lineage(Some("K2"), &[]));
    assert_eq!(store.lineage_of(&key("K9")).await.expect("read"), Lineage::default());
    let all = store.attempts(&AttemptFilter::default(), &Span::of(50)).await.expect("read").items;
    assert_eq!(all.len(), 5, "each is stored once");
}

pub(in crate::store) async fn a_shared_record_goes_with_the_last_that_needs_it(scene: &Scene) {
    let store = scene.open();
    let record = twice_split(&store).await;
    record.remove("K1", 10).await;
    record.remove("K2", 30).await;
    record.purge(35).await;
    assert_eq!(record.by_key("K1").await, ["K1/1 bcd", "K1/2 b"], "K3 is still there");
    let gone = store.gone(&key("K1")).await.expect("read").expect("it is");
    assert_eq!(gone.at, at(10), "its end stays what it was");
    assert_eq!(store.purge_records(Duration::from_secs(10), 3).await.expect("purged"), 0, "nothing is looked at again");
    record.remove("K3", 50).await;
    record.purge(60).await;
    assert_eq!(record.by_key("K3").await, ["K1/1 d", "K2/2 d"], "its time is not over");
    assert_eq!(record.by_key("K2").await.len(), 3);
    record.purge(61).await;
    let all = store.attempts(&AttemptFilter::default(), &Span::of(50)).await.expect("read").items;
    assert!(all.is_empty(), "{all:?}");
    for name in ["K1", "K2", "K3"] {
        assert!(store.gone(&key(name)).await.expect("read").is_none(), "{name}");
        assert_eq!(store.lineage_of(&key(name)).await.expect("read"), Lineage::default(), "{name}");
    }
}

pub(in crate::store) async fn a_split_off_record_ends_before_that_of_the_mail_it_came_from(scene: &Scene) {
    let store = scene.open();
    let record = twice_split(&store).await;
    record.remove("K2", 20).await;
    record.remove("K3", 21).await;
    record.purge(31).await;
    assert_eq!(record.by_key("K2").await.len(), 3, "K3 has a second left");
    record.purge(32).await;
    assert!(record.by_key("K2").await.is_empty() && record.by_key("K3").await.is_empty());
    assert_eq!(record.by_key("K1").await, ["K1/1 bcd", "K1/2 b"], "K1 is still there");
}

pub(in crate::store) async fn what_operators_did_goes_with_what_is_split_off(scene: &Scene) {
    let store = scene.open();
    let place = Place::Repository(temporary());
    let verbs = async |name: &str| -> Vec<String> {
        let all = store.operations_of(&key(name)).await.expect("read");
        all.into_iter().map(|one| one.verb).collect()
    };
    let act = async |verb: &str, name: &str, act: Act| {
        let new = NewOperation { verb: verb.to_owned(), ..NewOperation::default() };
        let operation = store.begin_operation(&new).await.expect("begun");
        let batch = Batch { operation, place: place.clone(), act, keys: vec![key(name)], within: None };
        assert_eq!(store.act(&batch).await.expect("done"), [Acted::Done]);
    };
    let record = Record { store: &store };
    insert(&store, "K1", &[B, C]).await;
    record.attempt("K1", 2, &[(B, Outcome::Deferred), (C, Outcome::Deferred)], &[("K1", &[B, C])]).await;
    act("acknowledge", "K1", Act::Acknowledge { by: "anna".into(), note: "known".into() }).await;
    act("reprocess", "K1", Act::Respool(Respool { processor: "relay".into(), ..Respool::default() })).await;
    record.attempt("K1", 3, &[(B, Outcome::Deferred), (C, Outcome::Failed)], &[("K1", &[B]), ("K2", &[C])]).await;
    act("unacknowledge", "K1", Act::Unacknowledge).await;
    act("remove", "K2", Act::Remove).await;
    assert_eq!(verbs("K1").await, ["acknowledge", "reprocess", "unacknowledge"]);
    assert_eq!(verbs("K2").await, ["acknowledge", "reprocess", "remove"], "and not what was done to the other since");
}

pub(in crate::store) async fn a_death_in_a_pass_that_splits_loses_no_record(scene: &Scene) {
    let store = scene.open();
    insert(&store, "K1", &[B, C]).await;
    let dying = scene.open();
    let claimed = claim_one(&dying, Place::Spool).await;
    let attempt = dying.at(2).begin_attempt(&claimed.claim, &claimed.mail.attributes, &[]).await.expect("begun");
    let outcomes = [recorded(B, Outcome::Deferred), recorded(C, Outcome::Failed)];
    dying.record(&claimed.claim, attempt, &outcomes, &[], 1000).await.expect("recorded");
    drop(dying);
    store.at(3).reap().await.expect("reaped");
    let again = claim_one_suspect(&store).await;
    let part = |name: &str, to: &str| {
        let mut mail = again.mail.clone();
        (mail.key, mail.envelope.recipients) = (key(name), vec![address(to)]);
        Resting { mail, place: Some(temporary()) }
    };
    let settlement = Settlement { parts: vec![part("K1", B), part("K2", C)], ..Settlement::default() };
    store.at(4).settle(&again.claim, &settlement).await.expect("settled");
    let record = Record { store: &store };
    assert_eq!(record.by_key("K1").await, ["K1/1 bc"]);
    assert_eq!(record.by_key("K2").await, ["K1/1 c"]);
}
