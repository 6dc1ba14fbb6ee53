//! What only this backend promises: its plans, its file, its behaviour on a full disk.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chrono::DateTime;
use futures_util::future::join_all;
use rusqlite::Connection;

use super::super::contract::store_contract;
use super::super::{
    Act, Acted, Batch, Claimed, Error, MailFilter, NewOperation, Place, Respool, Result, Span, Store, Trouble, Wanted,
};
use super::instance::Liveness;
use super::{SqliteStore, claim, groups, history, listing, open, operate, pager, tasks};
use crate::clock::Clock;
use crate::mail::{
    Address, Attributes, Envelope, MailKey, MessageFacts, MessageId, NewMail, NewMessage, RepositoryPath, ReversePath,
};

fn open_with(directory: &Path, clock: &Clock) -> Arc<dyn Store> {
    Arc::new(SqliteStore::open(&directory.join("t.db"), "test", clock).expect("opens"))
}

store_contract!(open_with);

fn open_at(directory: &Path) -> Arc<dyn Store> {
    open_with(directory, &Clock::system())
}

/// A connection to the database at `path`.
fn connect(path: &Path) -> Result<Connection> {
    open::open(path, &Liveness::open(path).expect("a lock file"))
}

async fn remove(store: &dyn Store, place: &Place, key: &MailKey) {
    assert_eq!(act(store, place, key, Act::Remove).await, Acted::Done);
}

async fn act(store: &dyn Store, place: &Place, key: &MailKey, act: Act) -> Acted {
    let operation = store.begin_operation(&NewOperation::default()).await.expect("begun");
    let batch = Batch { operation, place: place.clone(), act, keys: vec![key.clone()], within: None };
    store.act(&batch).await.expect("done").remove(0)
}

fn mail(name: &str, octets: usize) -> NewMail {
    let recipient = Address::parse("b@x.example").expect("an address");
    NewMail {
        key: MailKey::parse(name).expect("a key"),
        name: name.to_owned(),
        envelope: Envelope::new(ReversePath::Null, vec![recipient]),
        state: "relay".to_owned(),
        attributes: Attributes::default(),
        message: NewMessage::Whole(Bytes::from(vec![b'x'; octets])),
        facts: MessageFacts { size: octets as u64, ..MessageFacts::default() },
        client: None,
        import_digest: None,
    }
}

#[test]
fn a_claim_reads_only_what_may_be_due() {
    let directory = tempfile::tempdir().expect("a directory");
    let connection = connect(&directory.path().join("t.db")).expect("opens");
    for (query, plan) in claim::plans(&connection).expect("plans") {
        assert!(plan.contains("SEARCH mail USING") && !plan.contains("SCAN mail"), "{query}\n{plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{query}\n{plan}");
    }
}

#[test]
fn a_page_begins_in_an_index_and_is_not_sorted() {
    let directory = tempfile::tempdir().expect("a directory");
    let connection = connect(&directory.path().join("t.db")).expect("opens");
    let plans = [listing::plans, groups::plans, history::plans, tasks::plans, pager::plans, operate::plans]
        .map(|plans| plans(&connection));
    for (query, plan) in plans.into_iter().flat_map(|plans| plans.expect("plans")) {
        // What was searched already, at most 10 000 rows; and what a mail was split off from.
        let scans = plan.replace("SCAN mine", "").replace("SCAN line", "").contains("SCAN");
        assert!(plan.contains("SEARCH") && !scans, "{query}\n{plan}");
        // Those of one mail, and of what it was split off from, are few; so are the repositories of
        // a cause, and the next hops of a day.
        let sorts_few = ["FROM lineage", "failure_group.cause = ?2", "GROUP BY next_hop"];
        let sorts_few = sorts_few.into_iter().any(|few| query.contains(few));
        assert!(sorts_few || !plan.contains("TEMP B-TREE"), "{query}\n{plan}");
    }
}

#[test]
fn what_goes_is_looked_for_by_an_index_where_others_may_refer_to_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let connection = connect(&directory.path().join("t.db")).expect("opens");
    let rows = |query: &str| -> Vec<(String, String)> {
        let mut statement = connection.prepare(query).expect("valid");
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("read");
        rows.map(|row| row.expect("a row")).collect()
    };
    // What refers to repositories does not matter: none of them ever goes.
    let references = "SELECT child.name, key.\"from\" FROM sqlite_schema child, pragma_foreign_key_list(child.name) key \
         WHERE child.type = 'table' AND key.\"table\" <> 'repository'";
    let indexed = "SELECT child.name, part.name FROM sqlite_schema child, pragma_index_list(child.name) one, \
         pragma_index_info(one.name) part WHERE child.type = 'table' AND part.seqno = 0 AND NOT one.partial \
         UNION SELECT child.name, part.name FROM sqlite_schema child, pragma_table_info(child.name) part \
         WHERE child.type = 'table' AND part.pk = 1";
    let (references, indexed) = (rows(references), rows(indexed));
    assert!(references.len() >= 3, "{references:?}");
    for reference in references {
        assert!(indexed.contains(&reference), "{reference:?} has no index");
    }
}

#[tokio::test]
async fn room_is_given_back_in_few_steps() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open_at(directory.path());
    for n in 0..100 {
        store.insert(mail(&format!("K{n}"), 256 * 1024)).await.expect("inserted");
    }
    for n in 0..100 {
        let key = MailKey::parse(&format!("K{n}")).expect("a key");
        remove(&*store, &Place::Spool, &key).await;
    }
    let mut steps = 0;
    while store.tidy().await.expect("tidied") {
        steps += 1;
    }
    store.close().await.expect("closed");
    let size = directory.path().join("t.db").metadata().expect("there").len();
    assert!(size < 10 << 20 && steps < 20, "{size} octets after {steps} steps");
}

#[tokio::test(flavor = "multi_thread")]
async fn others_come_between_the_turns_of_what_is_done_to_many() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open_at(directory.path());
    let names: Vec<_> = (0..600).map(|n| format!("K{n}")).collect();
    for inserted in join_all(names.iter().map(|name| store.insert(mail(name, 10)))).await {
        inserted.expect("inserted");
    }
    let operation = store.begin_operation(&NewOperation::default()).await.expect("begun");
    let keys = names.iter().map(|name| MailKey::parse(name).expect("a key")).collect();
    let batch = Batch { operation, place: Place::Spool, act: Act::Remove, keys, within: None };
    let working = Arc::clone(&store);
    let work = tokio::spawn(async move { working.act(&batch).await });
    let mut between = 0;
    // Somebody who never pauses is not held up, and holds up nothing for ever.
    while !work.is_finished() {
        store.ping().await.expect("written");
        between += 1;
    }
    let acted = work.await.expect("no panic").expect("done");
    assert_eq!(acted, vec![Acted::Done; names.len()]);
    assert!(between > 5, "it was all done at once");
    let operation = store.operation(operation).await.expect("read").expect("on record");
    assert_eq!(operation.done, 600);
}

#[tokio::test]
async fn a_mail_that_cannot_be_read_stops_no_other() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open_at(directory.path());
    for name in ["K1", "K2", "K3"] {
        store.insert(mail(name, 10)).await.expect("inserted");
    }
    let spoil = |key: &str| {
        let connection = Connection::open(directory.path().join("t.db")).expect("opens");
        let sql = "UPDATE mail SET recipients = '[\"no address\"]' WHERE key = ?1";
        assert_eq!(connection.execute(sql, [key]).expect("written"), 1);
    };
    let wanted = Wanted {
        from: Place::Spool,
        run: None,
        within: None,
        spacing: Vec::new(),
        limit: 9,
        suspects: false,
        only: None,
    };
    spoil("K1");
    let keys = |claimed: Vec<Claimed>| claimed.into_iter().map(|one| one.mail.key.to_string()).collect::<Vec<_>>();
    let dying = open_at(directory.path());
    assert_eq!(keys(dying.claim(&wanted).await.expect("claimed")), ["K2", "K3"]);
    spoil("K2");
    drop(dying);
    assert_eq!(store.reap().await.expect("reaped").mails, 2);
    let suspects = Wanted { suspects: true, ..wanted.clone() };
    assert_eq!(keys(store.claim(&suspects).await.expect("claimed")), ["K3"]);
    assert!(store.claim(&wanted).await.expect("claimed").is_empty());
    let listed = store.list(&Place::Spool, &MailFilter::default(), &Span::of(9)).await.expect("listed").items;
    assert_eq!(listed.iter().map(|one| one.mail.key.to_string()).collect::<Vec<_>>(), ["K3"]);
    let (first, second) = (MailKey::parse("K1").expect("a key"), MailKey::parse("K2").expect("a key"));
    let aside = Place::Repository(RepositoryPath::parse("var/mail/error").expect("a path"));
    assert_eq!((store.size(&Place::Spool).await.expect("size"), store.size(&aside).await.expect("size")), (1, 2));
    assert!(store.find(&aside, &first).await.is_err_and(|error| error.is_unreadable()));
    let again = Act::Respool(Respool { processor: "relay".to_owned(), ..Respool::default() });
    let refused = act(&*store, &aside, &first, again.clone()).await;
    assert!(matches!(refused, Acted::Unreadable(_)), "in the spool nobody could reach it");
    remove(&*store, &aside, &first).await;
    // A version that can read it is told to try again.
    let connection = Connection::open(directory.path().join("t.db")).expect("opens");
    connection.execute_batch("UPDATE mail SET recipients = '[\"b@x.example\"]' WHERE key = 'K2'").expect("written");
    assert_eq!(act(&*store, &aside, &second, again).await, Acted::Done);
    assert_eq!(keys(store.claim(&wanted).await.expect("claimed")), ["K2"]);
}

#[tokio::test]
async fn a_message_that_is_no_longer_whole_is_no_shorter_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open_at(directory.path());
    store.insert(mail("K1", 10)).await.expect("inserted");
    let key = MailKey::parse("K1").expect("a key");
    let message = store.find(&Place::Spool, &key).await.expect("found").mail.message;
    let octets = |row: Result<Bytes>| row.map(|octets| octets.len());
    assert_eq!(octets(store.content(message, 0).await).expect("read"), 10);
    assert_eq!(octets(store.content(message, 1).await).expect("the end"), 0);
    let rows = store.first_rows(&[MessageId(0), message]).await.expect("read");
    assert_eq!(rows, [None, Some(Bytes::from_static(b"xxxxxxxxxx"))]);
    remove(&*store, &Place::Spool, &key).await;
    assert!(matches!(store.content(message, 0).await, Err(Error::NoContent)));
}

#[test]
fn what_is_no_store_of_ours_is_refused_untouched() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("text.db"), "this is no database, whatever its name says, and long enough\n".repeat(20))
        .expect("written");
    std::fs::create_dir(path("directory.db")).expect("made");
    nix::unistd::mkfifo(&path("pipe.db"), nix::sys::stat::Mode::S_IRWXU).expect("made");
    std::os::unix::fs::symlink("pipe.db", path("link.db")).expect("linked");
    let _socket = std::os::unix::net::UnixListener::bind(path("socket.db")).expect("bound");
    let other = Connection::open(path("other.db")).expect("opens");
    other.execute_batch("CREATE TABLE t (a); PRAGMA user_version = 1").expect("made");
    drop(connect(&path("newer.db")).expect("opens"));
    Connection::open(path("newer.db")).expect("opens").execute_batch("PRAGMA user_version = 99").expect("made");
    for version in [1, 4] {
        let older = path(&format!("older{version}.db"));
        drop(connect(&older).expect("opens"));
        let connection = Connection::open(older).expect("opens");
        connection.execute_batch(&format!("PRAGMA user_version = {version}")).expect("made");
    }
    for (name, why) in [
        ("text.db", "not a SQLite database"),
        ("directory.db", "it is a directory"),
        ("pipe.db", "it is a pipe, and no file"),
        ("link.db", "it is a pipe, and no file"),
        ("socket.db", "it is a socket, and no file"),
        ("other.db", "of another program"),
        ("newer.db", "schema version 99"),
        ("older1.db", "schema version 1, of a redeliver before the first release"),
        ("older4.db", "begin anew"),
    ] {
        let content = || std::fs::metadata(path(name)).expect(name).is_file().then(|| std::fs::read(path(name)).ok());
        let before = content();
        let error = connect(&path(name)).map(drop).expect_err(name).to_string();
        assert!(error.contains(why) && error.contains(name), "{error}");
        assert_eq!(content(), before, "{name} is untouched");
    }
}

#[test]
fn settings_that_keep_mail_are_in_force() {
    let directory = tempfile::tempdir().expect("a directory");
    let connection = connect(&directory.path().join("t.db")).expect("opens");
    let ask = |pragma: &str| {
        connection
            .query_row(&format!("PRAGMA {pragma}"), [], |row| {
                row.get::<_, String>(0).or_else(|_| row.get::<_, i64>(0).map(|n| n.to_string()))
            })
            .expect(pragma)
    };
    assert_eq!((ask("journal_mode"), ask("synchronous"), ask("foreign_keys")), ("wal".into(), "2".into(), "1".into()));
    assert_eq!(ask("auto_vacuum"), "2");
}

/// A file system of `size`, gone with the value. `None` where this user may not mount.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "redeliver-test"])
            .arg(directory.path())
            .stderr(std::process::Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        mounted.then_some(Self(directory))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "the test's file system can be unmounted");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_what_was_answered_is_there_and_nothing_else() {
    let Some(disk) = SmallDisk::mount("3m") else {
        eprintln!("not run: this user may not mount a file system to fill up");
        return;
    };
    let store = open_at(disk.0.path());
    // Together, so that small operations share a transaction with the one that ends it.
    let calls = (0..64).map(|n| {
        let (store, octets) = (Arc::clone(&store), if n % 4 == 0 { 200_000 } else { 10 });
        tokio::spawn(async move { (n, store.insert(mail(&format!("K{n}"), octets)).await) })
    });
    let (mut kept, mut refused) = (Vec::new(), 0);
    for call in calls.collect::<Vec<_>>() {
        match call.await.expect("no panic") {
            (n, Ok(())) => kept.push(format!("K{n}")),
            (_, Err(Error::Trouble { kind: Trouble::Full | Trouble::Io, .. })) => refused += 1,
            (n, Err(error)) => panic!("K{n}: {error}"),
        }
    }
    assert!(refused > 0 && !kept.is_empty(), "{refused} refused, {} kept", kept.len());
    let listed = store.list(&Place::Spool, &MailFilter::default(), &Span::of(100)).await.expect("listed").items;
    let mut found: Vec<_> = listed.iter().map(|l| l.mail.key.to_string()).collect();
    found.sort();
    kept.sort();
    assert_eq!(found, kept, "exactly what was answered is stored");
    let connection = Connection::open(disk.0.path().join("t.db")).expect("opens");
    let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("checked");
    assert_eq!(check, "ok");
}

#[tokio::test]
async fn a_failed_operation_takes_no_other_of_its_group_along() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open_at(directory.path());
    let calls: Vec<_> = ["A", "B", "A", "C"].into_iter().map(|name| store.insert(mail(name, 10))).collect();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.is_ok());
    }
    assert_eq!(answers, [true, true, false, true], "a key is taken once");
    assert_eq!(store.size(&Place::Spool).await.expect("size"), 3);
}

#[tokio::test]
async fn a_database_that_was_replaced_or_removed_takes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("t.db");
    let store = open_at(directory.path());
    store.ping().await.expect("it works");
    std::fs::copy(&path, directory.path().join("copy")).expect("copied");
    std::fs::rename(directory.path().join("copy"), &path).expect("replaced");
    for refused in [store.ping().await, store.insert(mail("K1", 10)).await] {
        let error = refused.expect_err("refused").to_string();
        assert!(error.contains("removed or replaced"), "{error}");
    }
    std::fs::remove_file(&path).expect("removed");
    store.ping().await.expect_err("refused");
}

#[test]
fn a_store_that_may_not_be_written_says_so() {
    if nix::unistd::Uid::effective().is_root() {
        eprintln!("not run: root may write everything");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    drop(connect(&directory.path().join("t.db")).expect("opens"));
    std::fs::set_permissions(directory.path().join("t.db"), std::fs::Permissions::from_mode(0o400)).expect("changed");
    let error = connect(&directory.path().join("t.db")).map(drop).expect_err("refused").to_string();
    assert!(error.contains("may not be written"), "{error}");
}

#[tokio::test]
async fn what_tries_the_store_is_written_as_a_mail_would_be() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open_at(directory.path());
    let written = || std::fs::metadata(directory.path().join("t.db-wal")).expect("a log").len();
    for _ in 0..3 {
        let before = written();
        store.ping().await.expect("it works");
        assert!(written() > before);
    }
}

#[tokio::test]
async fn processes_that_ended_are_forgotten_after_their_time() {
    let directory = tempfile::tempdir().expect("a directory");
    let seconds = Arc::new(AtomicI64::new(1));
    let time = Arc::clone(&seconds);
    let clock = Clock::scripted(move || DateTime::from_timestamp(time.load(Ordering::Relaxed), 0).expect("a time"));
    let take_nothing = Wanted {
        from: Place::Spool,
        run: None,
        within: None,
        spacing: Vec::new(),
        limit: 1,
        suspects: false,
        only: None,
    };
    let store = open_with(directory.path(), &clock);
    store.claim(&take_nothing).await.expect("registered");
    for second in [2, 3] {
        seconds.store(second, Ordering::Relaxed);
        let short = open_with(directory.path(), &clock);
        short.claim(&take_nothing).await.expect("registered");
        short.close().await.expect("closed");
    }
    seconds.store(9, Ordering::Relaxed);
    assert_eq!(store.purge_records(Duration::from_secs(6), 10).await.expect("purged"), 1);
    let connection = Connection::open(directory.path().join("t.db")).expect("opens");
    let left: i64 = connection.query_row("SELECT count(*) FROM instance", [], |row| row.get(0)).expect("counted");
    assert_eq!(left, 2, "the one that goes on, and the young one");
}
