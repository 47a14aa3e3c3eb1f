-- What clients of the server make. A thread of theirs has the id of the engine's thread, which its first run begins.
CREATE TABLE assistants (
  n          INTEGER PRIMARY KEY,
  id         TEXT    NOT NULL UNIQUE,
  graph      TEXT    NOT NULL,
  version    INTEGER NOT NULL,            -- the one that counts
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT;
CREATE TABLE assistant_versions (
  assistant  INTEGER NOT NULL REFERENCES assistants (n) ON DELETE CASCADE,
  version    INTEGER NOT NULL,
  body       TEXT    NOT NULL,            -- JSON: name, description, config, context, metadata
  created_at INTEGER NOT NULL,
  UNIQUE (assistant, version)
) STRICT;

CREATE TABLE api_threads (
  n          INTEGER PRIMARY KEY,
  id         TEXT    NOT NULL UNIQUE,
  graph      TEXT,                        -- the graph of its runs; NULL until one was accepted
  metadata   TEXT    NOT NULL,            -- JSON
  config     TEXT    NOT NULL,            -- JSON
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  state_at   INTEGER NOT NULL             -- when its state changed last
) STRICT;
CREATE INDEX api_threads_newest ON api_threads (created_at);

CREATE TABLE api_runs (
  n          INTEGER PRIMARY KEY,         -- the order of its thread's queue
  id         TEXT    NOT NULL UNIQUE,
  thread     INTEGER NOT NULL REFERENCES api_threads (n) ON DELETE CASCADE,
  status     TEXT    NOT NULL,            -- pending, running, success, error, interrupted
  body       TEXT    NOT NULL,            -- JSON: assistant, graph, metadata, kwargs, strategy
  due_at     INTEGER NOT NULL,            -- it does not begin before
  first      INTEGER,                     -- the thread's newest event when it began
  last       INTEGER,                     -- the thread's newest event when it ended
  outcome    TEXT,                        -- JSON: how it ended
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX api_runs_thread ON api_runs (thread, n);
CREATE INDEX api_runs_open ON api_runs (thread, n) WHERE status IN ('pending', 'running');
