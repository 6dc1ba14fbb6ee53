-- Everything that rests: never edited once released; what comes later is a new file.
-- Versions 1 to 4 were of programs before the first release, and are refused.
-- Times are milliseconds since 1970 in UTC. Names of places are those of `repository`.

-- A process that has the store open and takes mails in hand. Its lock is the byte of
-- its number in the file beside the database: the kernel lets it go when it dies.
CREATE TABLE instance (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    kind    TEXT NOT NULL,
    pid     INTEGER NOT NULL,
    started INTEGER NOT NULL,
    ended   INTEGER,
    -- Once it is found dead: how many mails it had in hand, and how many of them in an attempt.
    -- They are freed in steps, and each is judged by what there was at the death.
    in_hand INTEGER,
    begun   INTEGER
);
CREATE INDEX instance_going ON instance (id) WHERE ended IS NULL;

-- Sums, by kind; and the last number of the sequence. Nearly every commit changes some: as
-- tables of their own each would be a page more of it. They are read through the views below.
CREATE TABLE tally (
    -- 0 sequence, 1 place_sum, 2 outcome_sum, 3 place_hour, 4 outcome_hour.
    kind INTEGER NOT NULL,
    -- What is summed up.
    a NOT NULL DEFAULT 0,
    b NOT NULL DEFAULT 0,
    c NOT NULL DEFAULT 0,
    -- The sums.
    x INTEGER NOT NULL DEFAULT 0,
    y INTEGER NOT NULL DEFAULT 0,
    z INTEGER NOT NULL DEFAULT 0,
    last_at INTEGER,
    last TEXT,
    PRIMARY KEY (kind, a, b, c)
) WITHOUT ROWID;

-- One row: the order in which mails came to where they are, the numbers of claims, and those
-- of mails, messages and attempts.
INSERT INTO tally (kind) VALUES (0);
CREATE VIEW sequence AS SELECT x AS value FROM tally WHERE kind = 0;

-- Number 0 is the spool.
CREATE TABLE repository (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    path    TEXT NOT NULL UNIQUE,
    created INTEGER NOT NULL
);
INSERT INTO repository VALUES (0, '', 0);

-- Its number is one of the sequence, and so are those of mails and attempts: what came later has
-- a greater one, and none is used twice.
CREATE TABLE message (
    id               INTEGER PRIMARY KEY,
    size             INTEGER NOT NULL DEFAULT 0,
    eight_bit_header INTEGER NOT NULL DEFAULT 0,
    eight_bit_body   INTEGER NOT NULL DEFAULT 0,
    received         INTEGER NOT NULL DEFAULT 0,
    -- How many mails it belongs to. At 0 it is being written ahead by `writer`, or waits to be reaped.
    mails            INTEGER NOT NULL DEFAULT 0,
    writer           INTEGER
);
CREATE INDEX message_ownerless ON message (id) WHERE mails = 0;

-- 256 KiB of a message a row; id = message * 2^20 + number of the row, so that no
-- second index is needed and a message's rows lie together.
CREATE TABLE chunk (
    id     INTEGER PRIMARY KEY,
    octets BLOB NOT NULL
);

CREATE TABLE mail (
    id            INTEGER PRIMARY KEY,
    key           TEXT NOT NULL UNIQUE,
    name          TEXT NOT NULL,
    origin        TEXT,
    repository    INTEGER NOT NULL REFERENCES repository (id),
    -- Greater than that of every mail that came to rest before.
    seq           INTEGER NOT NULL,
    accepted      INTEGER NOT NULL,
    last_updated  INTEGER NOT NULL,
    -- In hand: claimed = 1, by `instance` under the fencing token `claim`. `run` is the run that took it last.
    claimed       INTEGER NOT NULL DEFAULT 0,
    instance      INTEGER,
    claim         INTEGER,
    run           INTEGER,
    -- Counted attempts since the counters were last reset, and when the last one ended (0: due at once).
    attempts      INTEGER NOT NULL DEFAULT 0,
    last_attempt  INTEGER NOT NULL DEFAULT 0,
    -- Attempt records so far, counted or not.
    records       INTEGER NOT NULL DEFAULT 0,
    -- AT_MOST_EXECUTIONS, as the attributes have it.
    passes        INTEGER NOT NULL DEFAULT 0,
    -- 0: none. 1: in hand when a process died. 1 + n: alone in hand at the last n deaths.
    -- -1: it cannot be read, and nobody takes it.
    suspect       INTEGER NOT NULL DEFAULT 0,
    sender        TEXT,
    recipients    TEXT NOT NULL,
    smtputf8      INTEGER NOT NULL DEFAULT 0,
    -- Who brought it: an IP address; NULL where it did not come over a network.
    client        TEXT,
    -- What the sender asked of notifications about the whole mail (RFC 3461): FULL or HDRS,
    -- and his own name for it, in xtext as it was given.
    ret           TEXT,
    envid         TEXT,
    -- The same by recipient, and what the sender was told of each: a JSON object
    -- {"b@x.example":{"notify":["FAILURE"],"orcpt":"rfc822;b@x.example",
    -- "told":[{"action":"delayed","at":"2026-11-28T20:00:00.000Z","dsn":KEY,"note":TEXT}]}},
    -- a member only where there is something to say; NULL where there is nothing at all.
    notify        TEXT,
    -- Whom notifications go to: the reverse-path that it was accepted with, where `sender` has
    -- another by now.
    return_path   TEXT,
    state         TEXT NOT NULL,
    error         TEXT,
    attributes    TEXT NOT NULL,
    header_prefix TEXT NOT NULL DEFAULT '',
    -- That of `message.mails`, which counts. No foreign key: it would need an index, to be written
    -- with each mail that comes and goes.
    message       INTEGER NOT NULL,
    -- Outcomes that a dead process recorded and could not file.
    recorded      TEXT NOT NULL DEFAULT '[]',
    -- {"by","at","note","operation"}, where somebody has taken note of its failure.
    acknowledged  TEXT
);
CREATE INDEX mail_listed  ON mail (repository, seq);
CREATE INDEX mail_resting ON mail (repository, seq) WHERE claimed = 0;
CREATE INDEX mail_due     ON mail (repository, attempts, last_attempt) WHERE claimed = 0;
CREATE INDEX mail_suspect ON mail (repository, seq) WHERE claimed = 0 AND suspect > 0;
CREATE INDEX mail_in_hand ON mail (instance) WHERE claimed = 1;

-- What a mail was split off from, whose attempts until then are its own too; for as long as
-- its record is kept, whichever of the two is gone.
CREATE TABLE lineage (
    key        TEXT PRIMARY KEY,
    origin     TEXT NOT NULL,
    -- The number that it got then: later attempts have greater ones.
    upto       INTEGER NOT NULL,
    -- Those it had then, as JSON.
    recipients TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX lineage_origin ON lineage (origin);

CREATE TABLE attempt (
    id       INTEGER PRIMARY KEY,
    mail     TEXT NOT NULL,
    sender   TEXT,
    number   INTEGER NOT NULL,
    instance INTEGER,
    run      INTEGER,
    started  INTEGER NOT NULL,
    finished INTEGER,
    -- 0 open, 1 settled, 2 in doubt
    state    INTEGER NOT NULL DEFAULT 0,
    counted  INTEGER NOT NULL DEFAULT 1,
    -- While it is open: the next hops that were to be tried, one JSON object a line, for the
    -- record of one whose process dies.
    planned  TEXT
);
CREATE INDEX attempt_mail ON attempt (mail, id);

-- The first attempt of every ten seconds since 1970 that had one: an index of their times would
-- be written with each of them.
CREATE TABLE attempt_time (
    tens  INTEGER PRIMARY KEY,
    first INTEGER NOT NULL
);

-- Their id is attempt * 2^20 + position: they lie together, and what is new comes last. No foreign
-- key, which would need an index: they go with their attempt.
CREATE TABLE attempt_recipient (
    id        INTEGER PRIMARY KEY,
    recipient TEXT NOT NULL,
    outcome   TEXT NOT NULL,
    code      INTEGER,
    next_hop  TEXT,
    -- The cause of what was not delivered: `cause.id`. NULL where none was told.
    cause     TEXT,
    -- What else is known of the outcome, as JSON.
    record    TEXT NOT NULL
);

-- What was said in an attempt: one JSON array a line, of when, who (1 is the peer), what, and over
-- which connection where that changes. The first has milliseconds since 1970, in brackets, each
-- other those since the line before.
CREATE TABLE dialogue (
    attempt INTEGER PRIMARY KEY REFERENCES attempt (id) ON DELETE CASCADE,
    entries TEXT NOT NULL DEFAULT '',
    -- 1 once the limit was reached: nothing is added any more.
    cut     INTEGER NOT NULL DEFAULT 0
);

-- Keys whose mail is gone; their attempts are kept for the retention time.
CREATE TABLE released (
    key       TEXT PRIMARY KEY,
    at        INTEGER NOT NULL,
    -- What took it away; NULL where it was delivered, or its way through the processors ended it.
    operation INTEGER,
    -- 1: its time is over, and a mail that was split off from it still has a record of its own.
    held      INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX released_at ON released (at) WHERE held = 0;

-- Causes of failures (failure groups), told apart by what does not differ from mail to mail.
CREATE TABLE cause (
    -- 12 hex digits of SHA-256 of the cause.
    id       TEXT PRIMARY KEY,
    -- Of the rules that made it.
    version  INTEGER NOT NULL,
    outcome  TEXT NOT NULL,
    code     INTEGER,
    enhanced TEXT,
    stage    TEXT NOT NULL,
    next_hop TEXT,
    text     TEXT NOT NULL
) WITHOUT ROWID;
-- How many texts a next hop and code have: at most 100.
CREATE INDEX cause_texts ON cause (next_hop, code);

-- The mails at rest in a repository, by the cause of their recipients' last failures: a mail
-- has at most 8. By mail, so that the order in a group is that of acceptance.
CREATE TABLE mail_cause (
    cause      TEXT NOT NULL,
    repository INTEGER NOT NULL,
    mail       INTEGER NOT NULL REFERENCES mail (id) ON DELETE CASCADE,
    PRIMARY KEY (cause, repository, mail)
) WITHOUT ROWID;
CREATE INDEX mail_cause_mail ON mail_cause (mail);

-- The sums of a failure group in a repository; counts are of mails.
CREATE TABLE failure_group (
    cause        TEXT NOT NULL,
    repository   INTEGER NOT NULL,
    mails        INTEGER NOT NULL DEFAULT 0,
    acknowledged INTEGER NOT NULL DEFAULT 0,
    -- When the first and the last of its mails came into it, those that are gone included.
    oldest       INTEGER NOT NULL,
    newest       INTEGER NOT NULL,
    PRIMARY KEY (cause, repository)
) WITHOUT ROWID;
CREATE INDEX failure_group_listed ON failure_group (-mails, cause, repository) WHERE mails > 0;

-- Mails that came into a group, by day since 1970 (UTC).
CREATE TABLE failure_day (
    cause      TEXT NOT NULL,
    repository INTEGER NOT NULL,
    day        INTEGER NOT NULL,
    mails      INTEGER NOT NULL,
    PRIMARY KEY (cause, repository, day)
) WITHOUT ROWID;
CREATE INDEX failure_day_over ON failure_day (day);

-- Sums of the mails of a place by the passes they have had, in hand or not; octets are those of
-- their messages, each mail's own.
CREATE VIEW place_sum AS
    SELECT a AS repository, b AS passes, x AS mails, y AS octets, z AS acknowledged FROM tally WHERE kind = 1;

-- Outcomes of recipients since the store was made; class is the first digit of the reply
-- code, 0 where there was no reply.
CREATE VIEW outcome_sum AS
    SELECT a AS outcome, b AS stage, c AS class, x AS recipients FROM tally WHERE kind = 2;

-- Sums of the mails of a repository, in hand or not, by the hour since 1970 in which they were
-- accepted. Not of the spool; an hour without mails has no row.
CREATE VIEW place_hour AS SELECT a AS repository, b AS hour, x AS mails FROM tally WHERE kind = 3;

-- Outcomes of recipients by hour since 1970, process (0: none that is registered) and next hop
-- ('': none was known), with the last of them: when, and the whole outcome as JSON.
CREATE VIEW outcome_hour AS
    SELECT a AS hour, b AS instance, c AS next_hop, x AS delivered, y AS deferred, z AS failed, last_at, last
    FROM tally WHERE kind = 4;

-- Hours that are over, folded to days since 1970: the next hops with the most, and the rest as '*'.
CREATE TABLE outcome_day (
    day       INTEGER NOT NULL,
    next_hop  TEXT NOT NULL,
    delivered INTEGER NOT NULL,
    deferred  INTEGER NOT NULL,
    failed    INTEGER NOT NULL,
    PRIMARY KEY (day, next_hop)
) WITHOUT ROWID;

CREATE TABLE run (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    job       TEXT NOT NULL,
    -- What started it: command, schedule, start or http.
    cause     TEXT NOT NULL,
    -- By whose tick, so that a tick is run once.
    schedule  TEXT,
    tick      INTEGER,
    instance  INTEGER,
    started   INTEGER NOT NULL,
    finished  INTEGER,
    selected  INTEGER NOT NULL DEFAULT 0,
    delivered INTEGER NOT NULL DEFAULT 0,
    deferred  INTEGER NOT NULL DEFAULT 0,
    failed    INTEGER NOT NULL DEFAULT 0,
    promoted  INTEGER NOT NULL DEFAULT 0,
    errors    INTEGER NOT NULL DEFAULT 0,
    failure   TEXT
);
CREATE INDEX run_going ON run (id) WHERE finished IS NULL;
CREATE INDEX run_job   ON run (job, id);
CREATE UNIQUE INDEX run_tick ON run (schedule, tick) WHERE tick IS NOT NULL;

-- When a service last saw each schedule.
CREATE TABLE schedule_seen (
    schedule TEXT PRIMARY KEY,
    seen     INTEGER NOT NULL
) WITHOUT ROWID;

-- Schedules whose ticks pass.
CREATE TABLE schedule_pause (
    schedule TEXT PRIMARY KEY,
    reason   TEXT,
    -- NULL: until somebody resumes it.
    until    INTEGER,
    by       TEXT NOT NULL,
    at       INTEGER NOT NULL
) WITHOUT ROWID;

-- Up to where in the order of mails a job of kind report has told of failures.
CREATE TABLE reported (
    job  TEXT PRIMARY KEY,
    upto INTEGER NOT NULL
) WITHOUT ROWID;

-- What an import took in already, by a digest of where it came from and what it was.
CREATE TABLE imported (
    digest TEXT PRIMARY KEY,
    key    TEXT NOT NULL,
    at     INTEGER NOT NULL
) WITHOUT ROWID;

-- What an operator, or a job in his place, changed otherwise than by delivery.
CREATE TABLE operation (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at         INTEGER NOT NULL,
    -- A name with its role, a user of this machine with his number, or a job.
    who        TEXT NOT NULL,
    -- The client's address, where it came over HTTP.
    client     TEXT,
    verb       TEXT NOT NULL,
    -- The path; '' is the spool, NULL is none.
    repository TEXT,
    -- Which mails were meant, as it was given.
    selection  TEXT NOT NULL DEFAULT '',
    -- What was to become of them: a processor, a repository, a note.
    detail     TEXT,
    -- Mails done, left because they were in hand, and gone before.
    done       INTEGER NOT NULL DEFAULT 0,
    in_hand    INTEGER NOT NULL DEFAULT 0,
    gone       INTEGER NOT NULL DEFAULT 0,
    task       TEXT
);

-- The mails that an operation changed or took away, by key: it outlives them.
CREATE TABLE operation_mail (
    key       TEXT NOT NULL,
    operation INTEGER NOT NULL REFERENCES operation (id) ON DELETE CASCADE,
    -- Of one that was removed: its recipients as JSON.
    detail    TEXT,
    PRIMARY KEY (key, operation)
) WITHOUT ROWID;
CREATE INDEX operation_mail_operation ON operation_mail (operation);

-- Long work asked for: shown while it goes on, and after it.
CREATE TABLE task (
    id        TEXT PRIMARY KEY,
    type      TEXT NOT NULL,
    -- James's words: waiting, inProgress, completed, failed, cancelRequested, canceled.
    status    TEXT NOT NULL,
    -- Who asked, as in `operation`.
    who       TEXT NOT NULL,
    submitted INTEGER NOT NULL,
    started   INTEGER,
    finished  INTEGER,
    -- The process that works on it.
    instance  INTEGER,
    operation INTEGER,
    -- How far it is, of how much where that is known.
    done      INTEGER NOT NULL DEFAULT 0,
    expected  INTEGER,
    -- What was asked for, and James's additionalInformation, as JSON.
    parameters TEXT NOT NULL DEFAULT '{}',
    details   TEXT NOT NULL DEFAULT '{}'
) WITHOUT ROWID;
CREATE INDEX task_submitted ON task (submitted, id);

-- How many tasks are in `task`, by status.
CREATE TABLE task_sum (
    status TEXT PRIMARY KEY,
    tasks  INTEGER NOT NULL
) WITHOUT ROWID;

-- Notifications of the last hour, by the reverse-path that they answer.
CREATE TABLE dsn_born (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    at     INTEGER NOT NULL,
    sender TEXT NOT NULL
);
CREATE INDEX dsn_born_at     ON dsn_born (at);
CREATE INDEX dsn_born_sender ON dsn_born (sender, at);

-- Notifications since the store was made, by action (RFC 3464) or `digest`; and `held`,
-- recipients of whom nobody was told.
CREATE TABLE dsn_sum (
    action TEXT PRIMARY KEY,
    count  INTEGER NOT NULL
) WITHOUT ROWID;

-- Recipients of whom nobody was told, by hour since 1970; for two days.
CREATE TABLE dsn_held (
    hour       INTEGER PRIMARY KEY,
    recipients INTEGER NOT NULL
);

-- What a sender is to be told together: one digest at a time.
CREATE TABLE dsn_digest (
    sender     TEXT PRIMARY KEY,
    -- The same as it was first written.
    address    TEXT NOT NULL,
    -- The key that its mail will have.
    key        TEXT NOT NULL,
    due        INTEGER NOT NULL,
    recipients INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX dsn_digest_due ON dsn_digest (due);

-- The first of them, with what is told of each as JSON.
CREATE TABLE dsn_gathered (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    sender TEXT NOT NULL,
    record TEXT NOT NULL
);
CREATE INDEX dsn_gathered_sender ON dsn_gathered (sender, id);
