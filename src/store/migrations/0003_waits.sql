-- Messages to threads, until a wait takes them.
CREATE TABLE signals (
  thread INTEGER NOT NULL REFERENCES threads (n) ON DELETE CASCADE,
  seq    INTEGER NOT NULL,
  body   TEXT    NOT NULL,               -- JSON Signal
  taken  INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (thread, seq)
) STRICT, WITHOUT ROWID;
ALTER TABLE threads ADD COLUMN wake TEXT;                                 -- JSON Alarm: when somebody must go on with it
ALTER TABLE threads ADD COLUMN heard INTEGER NOT NULL DEFAULT 0;          -- number of the newest signal that a run has looked at
-- Results of cached nodes.
CREATE TABLE cache (
  key        TEXT NOT NULL PRIMARY KEY,
  body       TEXT NOT NULL,              -- JSON Produced
  expires_at INTEGER                     -- NULL: never
) STRICT, WITHOUT ROWID;
