-- Up to where in the order of mails a job of kind report has told of failures.
CREATE TABLE reported (
    job  TEXT PRIMARY KEY,
    upto INTEGER NOT NULL
) WITHOUT ROWID;
