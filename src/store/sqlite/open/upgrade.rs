//! A newer program on an older store, and an older one on a newer: with a step that only these
//! tests know, as long as there is no second one.

use std::path::Path;

use bytes::Bytes;
use rusqlite::Connection;

use super::{FIRST_VERSION, Failure, MIGRATIONS, migrate, open_in_place};
use crate::clock::Clock;
use crate::mail::{
    Address, Attributes, Envelope, MailKey, MessageFacts, NewMail, NewMessage, RepositoryPath, ReversePath,
};
use crate::store::{Act, Batch, Catalogue, Intake, NewOperation, Operations, Place, SqliteStore, Upkeep};

/// A column for each mail, filled from what is there, and an index over it.
const STEP: &str = "ALTER TABLE mail ADD COLUMN tested TEXT NOT NULL DEFAULT ''; \
     UPDATE mail SET tested = 'seen ' || id; CREATE INDEX mail_tested ON mail (tested);";

/// The same, and then something that cannot be done.
const BROKEN: &str = "ALTER TABLE mail ADD COLUMN tested TEXT NOT NULL DEFAULT ''; \
     UPDATE mail SET tested = 'seen'; INSERT INTO nowhere VALUES (1);";

fn mail(number: u64) -> NewMail {
    let recipient = Address::parse("b@x.example").expect("an address");
    let octets = 70_000 * number + 10;
    NewMail {
        key: MailKey::parse(&format!("K{number}")).expect("a key"),
        name: format!("mail {number}"),
        envelope: Envelope::new(ReversePath::Null, vec![recipient]),
        state: "relay".to_owned(),
        attributes: Attributes::default(),
        message: NewMessage::Whole(Bytes::from(vec![b'x'; usize::try_from(octets).expect("small")])),
        facts: MessageFacts { size: octets, ..MessageFacts::default() },
        client: None,
        import_digest: None,
    }
}

/// A store of this program's version, with a mail in the spool and one in each of two repositories.
async fn fill(path: &Path) {
    let store = SqliteStore::open(path, "test", &Clock::system()).expect("opens");
    let places = ["error", "temporary"].map(|name| RepositoryPath::parse(name).expect("a path"));
    store.ensure_repositories(&places).await.expect("made");
    for number in 0..3 {
        store.insert(mail(number)).await.expect("taken");
    }
    for (number, place) in places.iter().enumerate() {
        let operation = store.begin_operation(&NewOperation::default()).await.expect("begun");
        let keys = vec![MailKey::parse(&format!("K{}", number + 1)).expect("a key")];
        let act = Act::Move(place.clone());
        store.act(&Batch { operation, place: Place::Spool, act, keys, within: None }).await.expect("moved");
    }
    assert_eq!(store.size(&Place::Spool).await.expect("counted"), 1);
    store.close().await.expect("closed");
}

fn tables(connection: &Connection) -> Vec<String> {
    let mut statement =
        connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").expect("prepared");
    let names = statement.query_map([], |row| row.get(0)).expect("asked");
    names.map(|name| name.expect("a name")).collect()
}

/// All rows of all tables, without what the step adds.
fn content(connection: &Connection) -> Vec<String> {
    let mut rows = Vec::new();
    for table in tables(connection) {
        let mut statement = connection.prepare(&format!("SELECT * FROM \"{table}\"")).expect("prepared");
        let kept: Vec<_> = (0..statement.column_count())
            .filter(|&at| statement.column_name(at).is_ok_and(|name| name != "tested"))
            .collect();
        let mut found = statement.query([]).expect("asked");
        while let Some(row) = found.next().expect("read") {
            let values: Vec<_> = kept.iter().map(|&at| format!("{:?}", row.get_ref(at).expect("a value"))).collect();
            rows.push(format!("{table}: {}", values.join(" ")));
        }
    }
    rows
}

fn version(connection: &Connection) -> i64 {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("asked")
}

fn with(step: &'static str) -> Vec<&'static str> {
    MIGRATIONS.iter().copied().chain([step]).collect()
}

#[tokio::test]
async fn a_step_keeps_all_mail_and_is_done_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("t.db");
    fill(&path).await;
    let mut connection = open_in_place(&path).expect("opens");
    let (before, older) = (content(&connection), version(&connection));
    let steps = with(STEP);
    // Programs that are started at once after an upgrade.
    let others: Vec<_> = (0..4).map(|_| open_in_place(&path).expect("opens")).collect();
    std::thread::scope(|scope| {
        for mut other in others {
            let (path, steps) = (&path, &steps);
            scope.spawn(move || assert!(migrate(path, &mut other, steps).is_ok()));
        }
    });
    assert!(migrate(&path, &mut connection, &steps).is_ok(), "there is nothing left to do");
    assert_eq!((version(&connection), content(&connection)), (older + 1, before));
    let seen: i64 = connection
        .query_row("SELECT count(*) FROM mail WHERE tested = 'seen ' || id", [], |row| row.get(0))
        .expect("asked");
    assert_eq!(seen, 3);
}

#[tokio::test]
async fn a_step_that_fails_leaves_the_store_as_it_was() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("t.db");
    fill(&path).await;
    let mut connection = open_in_place(&path).expect("opens");
    let (before, older) = (content(&connection), version(&connection));
    let failed = migrate(&path, &mut connection, &with(BROKEN));
    assert!(matches!(failed, Err(Failure::Sqlite(error)) if error.to_string().contains("nowhere")));
    assert_eq!((version(&connection), content(&connection)), (older, before));
    let store = SqliteStore::open(&path, "test", &Clock::system()).expect("the older program still reads it");
    assert_eq!(store.size(&Place::Spool).await.expect("counted"), 1);
    store.close().await.expect("closed");
}

#[tokio::test]
async fn an_older_program_leaves_what_a_step_has_changed_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("t.db");
    fill(&path).await;
    let mut connection = open_in_place(&path).expect("opens");
    assert!(migrate(&path, &mut connection, &with(STEP)).is_ok());
    drop(connection);
    let before = std::fs::read(&path).expect("there");
    let refused = SqliteStore::open(&path, "test", &Clock::system()).map(drop).expect_err("newer").to_string();
    let newer = FIRST_VERSION + i64::try_from(MIGRATIONS.len()).expect("few");
    assert!(refused.contains(&format!("schema version {newer}")) && refused.contains("use the newer"), "{refused}");
    assert_eq!(std::fs::read(&path).expect("there"), before);
}
