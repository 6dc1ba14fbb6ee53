-- Everything that rests: never edited once released; what comes later is a new file.
-- Times are milliseconds since 1970 in UTC.

-- A process that has the store open and takes mails in hand. Its lock is the byte of
-- its number in the file beside the database: the kernel lets it go when it dies.
CREATE TABLE instance (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    kind    TEXT NOT NULL,
    pid     INTEGER NOT NULL,
    started INTEGER NOT NULL,
    ended   INTEGER
);
CREATE INDEX instance_going ON instance (id) WHERE ended IS NULL;

-- One row: the order in which mails came to where they are, and the numbers of claims.
CREATE TABLE sequence (value INTEGER NOT NULL);
INSERT INTO sequence VALUES (0);

-- Number 0 is the spool.
CREATE TABLE repository (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    path    TEXT NOT NULL UNIQUE,
    created INTEGER NOT NULL
);
INSERT INTO repository VALUES (0, '', 0);

CREATE TABLE message (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
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
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    key           TEXT NOT NULL UNIQUE,
    name          TEXT NOT NULL,
    origin        TEXT,
    repository    INTEGER NOT NULL REFERENCES repository (id),
    -- Greater than that of every mail that came to rest before.
    seq           INTEGER NOT NULL,
    accepted      INTEGER NOT NULL,
    last_updated  INTEGER NOT NULL,
    -- In hand: held = 1, by `instance` under the fencing token `claim`. `run` is the run that took it last.
    held          INTEGER NOT NULL DEFAULT 0,
    instance      INTEGER,
    claim         INTEGER,
    run           INTEGER,
    -- Counted attempts since the counters were last reset, and when the last one ended (0: due at once).
    attempts      INTEGER NOT NULL DEFAULT 0,
    last_attempt  INTEGER NOT NULL DEFAULT 0,
    -- Attempt records so far, counted or not.
    records       INTEGER NOT NULL DEFAULT 0,
    -- 0: none. 1: in hand when a process died. 1 + n: alone in hand at the last n deaths.
    suspect       INTEGER NOT NULL DEFAULT 0,
    sender        TEXT,
    recipients    TEXT NOT NULL,
    smtputf8      INTEGER NOT NULL DEFAULT 0,
    state         TEXT NOT NULL,
    error         TEXT,
    attributes    TEXT NOT NULL,
    header_prefix TEXT NOT NULL DEFAULT '',
    message       INTEGER NOT NULL REFERENCES message (id),
    -- Outcomes that a dead process recorded and could not file.
    recorded      TEXT NOT NULL DEFAULT '[]'
);
CREATE INDEX mail_listed  ON mail (repository, seq);
CREATE INDEX mail_resting ON mail (repository, seq) WHERE held = 0;
CREATE INDEX mail_due     ON mail (repository, attempts, last_attempt) WHERE held = 0;
CREATE INDEX mail_suspect ON mail (repository, seq) WHERE held = 0 AND suspect > 0;
CREATE INDEX mail_in_hand ON mail (instance) WHERE held = 1;

-- Whose attempts a split-off mail shares, up to which attempt.
CREATE TABLE lineage (
    mail INTEGER NOT NULL REFERENCES mail (id) ON DELETE CASCADE,
    key  TEXT NOT NULL,
    upto INTEGER NOT NULL,
    PRIMARY KEY (mail, key)
) WITHOUT ROWID;
CREATE INDEX lineage_key ON lineage (key);

CREATE TABLE attempt (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    mail     TEXT NOT NULL,
    sender   TEXT,
    number   INTEGER NOT NULL,
    instance INTEGER,
    run      INTEGER,
    started  INTEGER NOT NULL,
    finished INTEGER,
    -- 0 open, 1 settled, 2 in doubt
    state    INTEGER NOT NULL DEFAULT 0,
    counted  INTEGER NOT NULL DEFAULT 1
);
CREATE INDEX attempt_mail    ON attempt (mail, id);
CREATE INDEX attempt_started ON attempt (started);
CREATE INDEX attempt_open    ON attempt (mail) WHERE state = 0;

CREATE TABLE attempt_recipient (
    attempt   INTEGER NOT NULL REFERENCES attempt (id) ON DELETE CASCADE,
    position  INTEGER NOT NULL,
    recipient TEXT NOT NULL,
    outcome   TEXT NOT NULL,
    code      INTEGER,
    next_hop  TEXT,
    -- The whole outcome as JSON.
    record    TEXT NOT NULL,
    PRIMARY KEY (attempt, position)
) WITHOUT ROWID;

-- What was said in an attempt: one JSON object a line.
CREATE TABLE dialogue (
    attempt INTEGER PRIMARY KEY REFERENCES attempt (id) ON DELETE CASCADE,
    entries TEXT NOT NULL DEFAULT '',
    -- 1 once the limit was reached: nothing is added any more.
    cut     INTEGER NOT NULL DEFAULT 0
);

-- Keys whose mail is gone; their attempts are kept for the retention time.
CREATE TABLE released (
    key TEXT PRIMARY KEY,
    at  INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX released_at ON released (at);

CREATE TABLE run (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    job       TEXT NOT NULL,
    cause     TEXT NOT NULL,
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

-- When a service last saw each schedule.
CREATE TABLE schedule_seen (
    schedule TEXT PRIMARY KEY,
    seen     INTEGER NOT NULL
) WITHOUT ROWID;

-- What an import took in already, by a digest of where it came from and what it was.
CREATE TABLE imported (
    digest TEXT PRIMARY KEY,
    key    TEXT NOT NULL,
    at     INTEGER NOT NULL
) WITHOUT ROWID;

-- What administrators did: the only way for a mail to leave undelivered.
CREATE TABLE action (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at         INTEGER NOT NULL,
    verb       TEXT NOT NULL,
    repository TEXT NOT NULL,
    key        TEXT,
    detail     TEXT
);

-- Background work asked for over HTTP.
CREATE TABLE task (
    id        TEXT PRIMARY KEY,
    kind      TEXT NOT NULL,
    state     TEXT NOT NULL,
    submitted INTEGER NOT NULL,
    started   INTEGER,
    finished  INTEGER,
    instance  INTEGER,
    details   TEXT NOT NULL
) WITHOUT ROWID;
