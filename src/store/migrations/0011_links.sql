-- Links that decide one question as one person, and what is to be told of runs of the server that have ended.
CREATE TABLE links (
  n          INTEGER PRIMARY KEY,
  id         TEXT    NOT NULL UNIQUE,     -- no secret
  question   TEXT    NOT NULL REFERENCES interrupts (id) ON DELETE CASCADE,
  shown      TEXT    NOT NULL,            -- digest of what was asked when it was made: it decides nothing else
  holder     TEXT    NOT NULL,            -- as whom it decides
  within     TEXT,                        -- JSON: the roles and groups that it is held to; NULL: all that its holder has
  digest     TEXT    NOT NULL,            -- SHA-256 of its secret; the secret is nowhere
  created_at INTEGER NOT NULL,
  created_by TEXT    NOT NULL,
  expires_at INTEGER NOT NULL,
  used_at    INTEGER,                     -- NULL: not yet
  verdict    TEXT                         -- what was said with it
) STRICT;
CREATE INDEX links_question ON links (question);

CREATE TABLE run_webhooks (
  n        INTEGER PRIMARY KEY,
  run      TEXT    NOT NULL UNIQUE,       -- no reference: it is told also where the run went with its thread
  url      TEXT    NOT NULL,
  place    TEXT    NOT NULL,              -- scheme, host and port of it: one that does not answer holds up only its own
  body     TEXT    NOT NULL,              -- JSON: what is told
  attempts INTEGER NOT NULL,              -- which have failed
  next_at  INTEGER NOT NULL               -- no attempt before
) STRICT;
CREATE INDEX run_webhooks_due ON run_webhooks (place, next_at);
