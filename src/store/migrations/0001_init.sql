-- Times are whole nanoseconds since 1970 (UTC). JSON columns hold serde's form of the engine's types; their format belongs to this
-- schema's version, so a change of it is a migration.

CREATE TABLE threads (
  n           INTEGER PRIMARY KEY,          -- short key of all child rows
  id          TEXT    NOT NULL UNIQUE,
  status      TEXT    NOT NULL,
  epoch       INTEGER NOT NULL,
  owner       TEXT,                         -- JSON Owner; NULL: nobody advances it
  attendant   TEXT,                         -- JSON Owner
  failure     TEXT,                         -- JSON Failure
  unwinding   TEXT,                         -- JSON Unwinding
  committed_seq INTEGER NOT NULL,
  undone      INTEGER NOT NULL,
  last_event  INTEGER NOT NULL,             -- number of the newest event
  created_at  INTEGER NOT NULL,
  updated_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX threads_newest ON threads (created_at, id);

-- What never changes, apart: the row above is rewritten at every commit and stays small.
CREATE TABLE thread_origins (
  thread INTEGER PRIMARY KEY REFERENCES threads (n) ON DELETE CASCADE,
  body   TEXT NOT NULL                      -- workflow, document, fingerprint, node versions, input, labels
) STRICT;

CREATE TABLE labels (
  thread INTEGER NOT NULL REFERENCES threads (n) ON DELETE CASCADE,
  name   TEXT    NOT NULL,
  value  TEXT    NOT NULL,
  PRIMARY KEY (thread, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX labels_value ON labels (name, value, thread);

-- One line per namespace of a thread: the chain of its checkpoints.
CREATE TABLE lines (
  line   INTEGER PRIMARY KEY,
  thread INTEGER NOT NULL REFERENCES threads (n) ON DELETE CASCADE,
  ns     TEXT    NOT NULL,
  UNIQUE (thread, ns)
) STRICT;

-- A rowid table: snapshots are large, and a large row of a WITHOUT ROWID table is spread over overflow pages.
CREATE TABLE checkpoints (
  n      INTEGER PRIMARY KEY,               -- order within the line
  line   INTEGER NOT NULL REFERENCES lines (line) ON DELETE CASCADE,
  id     TEXT    NOT NULL,
  step   INTEGER NOT NULL,
  source TEXT    NOT NULL,
  at     INTEGER NOT NULL,
  base   INTEGER NOT NULL,                  -- 1: a snapshot; 0: changes since the row before it in its line
  body   TEXT    NOT NULL
) STRICT;
CREATE INDEX checkpoints_line ON checkpoints (line);

-- Finished tasks of a superstep that is not complete.
CREATE TABLE results (
  n          INTEGER PRIMARY KEY,
  line       INTEGER NOT NULL REFERENCES lines (line) ON DELETE CASCADE,
  checkpoint TEXT    NOT NULL,
  path       TEXT    NOT NULL,              -- JSON TaskPath
  body       TEXT    NOT NULL,              -- JSON TaskResult
  UNIQUE (line, checkpoint, path)
) STRICT;

CREATE TABLE attempts (
  n          INTEGER PRIMARY KEY,
  line       INTEGER NOT NULL REFERENCES lines (line) ON DELETE CASCADE,
  checkpoint TEXT    NOT NULL,
  path       TEXT    NOT NULL,
  failed     INTEGER NOT NULL,
  UNIQUE (line, checkpoint, path)
) STRICT;

CREATE TABLE entries (
  thread INTEGER NOT NULL REFERENCES threads (n) ON DELETE CASCADE,
  seq    INTEGER NOT NULL,
  place  TEXT    NOT NULL,                  -- JournalKey::place
  status TEXT    NOT NULL,
  effect TEXT    NOT NULL,
  body   TEXT    NOT NULL,                  -- JSON Entry
  UNIQUE (thread, place),
  UNIQUE (thread, seq)
) STRICT;

CREATE TABLE interrupts (
  n         INTEGER PRIMARY KEY,
  id        TEXT    NOT NULL UNIQUE,
  thread    INTEGER NOT NULL REFERENCES threads (n) ON DELETE CASCADE,
  ns        TEXT    NOT NULL,
  asked_at  INTEGER NOT NULL,
  body      TEXT    NOT NULL,               -- JSON Interrupt as asked
  answer    TEXT,                           -- JSON Answer
  withdrawn INTEGER NOT NULL
) STRICT;
CREATE INDEX interrupts_thread ON interrupts (thread, asked_at);
CREATE INDEX interrupts_open ON interrupts (asked_at) WHERE answer IS NULL AND withdrawn = 0;

CREATE TABLE events (
  thread INTEGER NOT NULL REFERENCES threads (n) ON DELETE CASCADE,
  seq    INTEGER NOT NULL,
  at     INTEGER NOT NULL,
  body   TEXT    NOT NULL,
  PRIMARY KEY (thread, seq)
) STRICT, WITHOUT ROWID;

-- Not tied to threads: it outlives them. AUTOINCREMENT, so that a missing end shows.
CREATE TABLE audit (
  seq       INTEGER PRIMARY KEY AUTOINCREMENT,
  thread    TEXT NOT NULL,
  at        TEXT NOT NULL,                  -- RFC 3339, as it was hashed
  body      TEXT NOT NULL,
  prev_hash TEXT NOT NULL,
  hash      TEXT NOT NULL
) STRICT;
CREATE INDEX audit_thread ON audit (thread);
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN SELECT raise(ABORT, 'the audit is never changed'); END;
CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
BEGIN SELECT raise(ABORT, 'the audit is never deleted'); END;
-- REPLACE deletes without firing the trigger above.
CREATE TRIGGER audit_is_not_replaced BEFORE INSERT ON audit
WHEN EXISTS (SELECT 1 FROM audit WHERE seq = NEW.seq)
BEGIN SELECT raise(ABORT, 'the audit is never changed'); END;

-- The release ledger. The seed's columns first.
CREATE TABLE ml_deployments (
  deployment_id       TEXT NOT NULL PRIMARY KEY,
  model_name          TEXT NOT NULL,
  model_version       TEXT,
  endpoint_url        TEXT,
  deployment_strategy TEXT NOT NULL,
  status              TEXT NOT NULL CHECK (status IN ('DRAFT', 'APPROVED', 'EXECUTING', 'COMPLETED', 'FAILED')),
  created_at          TEXT NOT NULL,        -- RFC 3339, UTC, nanoseconds: sorts as text
  previous_version    TEXT,
  reason              TEXT,
  content_digest      TEXT,
  release_dir         TEXT,
  slot                TEXT,
  slot_token          TEXT,
  plan                TEXT,                 -- JSON
  output              TEXT,                 -- JSON
  metrics_baseline    TEXT NOT NULL,        -- JSON, name to number
  requested_by        TEXT,
  environment         TEXT,
  live                INTEGER NOT NULL CHECK (live IN (0, 1)),
  superseded_by       TEXT,
  updated_at          TEXT NOT NULL,
  finished_at         TEXT,
  kind                TEXT NOT NULL CHECK (kind IN ('deploy', 'rollback'))
) STRICT;
CREATE UNIQUE INDEX ml_deployments_one_live ON ml_deployments (model_name) WHERE live = 1;
CREATE INDEX ml_deployments_newest ON ml_deployments (created_at, deployment_id);
CREATE INDEX ml_deployments_model ON ml_deployments (model_name, created_at, deployment_id);
