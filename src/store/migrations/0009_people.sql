-- Who may ask the server, what several people have said of one question, and what was told to whom.
CREATE TABLE api_keys (
  n          INTEGER PRIMARY KEY,
  id         TEXT    NOT NULL UNIQUE,
  holder     TEXT    NOT NULL,            -- whose it is: the name that records get
  roles      TEXT    NOT NULL,            -- JSON: list of words
  groups     TEXT    NOT NULL,            -- JSON: list of names
  digest     TEXT    NOT NULL,            -- SHA-256 of its secret; the secret is nowhere
  created_at INTEGER NOT NULL,
  created_by TEXT    NOT NULL,
  expires_at INTEGER,
  revoked_at INTEGER
) STRICT;

CREATE TABLE votes (
  n        INTEGER PRIMARY KEY,
  question TEXT    NOT NULL REFERENCES interrupts (id) ON DELETE CASCADE,
  digest   TEXT    NOT NULL,              -- of what was shown: a word about something else counts for nothing
  voter    TEXT    NOT NULL,
  body     TEXT    NOT NULL,              -- JSON
  at       INTEGER NOT NULL,
  UNIQUE (question, digest, voter)
) STRICT;

CREATE TABLE hooks (
  n        INTEGER PRIMARY KEY,
  name     TEXT    NOT NULL UNIQUE,
  told     INTEGER NOT NULL,              -- the newest row of the audit that it was told of
  attempts INTEGER NOT NULL,              -- of the next one, which have failed
  next_at  INTEGER NOT NULL               -- no attempt before
) STRICT;

CREATE TABLE reminders (
  n        INTEGER PRIMARY KEY,
  question TEXT    NOT NULL UNIQUE REFERENCES interrupts (id) ON DELETE CASCADE,
  at       INTEGER NOT NULL
) STRICT;
