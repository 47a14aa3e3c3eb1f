-- A superstep writes one row of checkpoints and one of events, each behind the newest of its line or thread, and nothing else.

CREATE TABLE checkpoints_by_line (
  n      INTEGER PRIMARY KEY,               -- (line << 32) + number in the line: a line's rows lie together, without an index
  id     ANY     NOT NULL,                  -- a UUID's 16 bytes; any other id as text
  step   INTEGER NOT NULL,
  source TEXT    NOT NULL,
  at     INTEGER NOT NULL,
  base   INTEGER NOT NULL,                  -- 1: a snapshot; 0: changes since the row before it in its line
  body   TEXT    NOT NULL
) STRICT;
INSERT INTO checkpoints_by_line (n, id, step, source, at, base, body)
  SELECT (line << 32) + row_number() OVER (PARTITION BY line ORDER BY n), id, step, source, at, base, body
  FROM checkpoints ORDER BY line, n;
DROP TABLE checkpoints;
ALTER TABLE checkpoints_by_line RENAME TO checkpoints;
-- What a foreign key would do.
CREATE TRIGGER lines_take_their_checkpoints AFTER DELETE ON lines
BEGIN DELETE FROM checkpoints WHERE n > OLD.line << 32 AND n < (OLD.line + 1) << 32; END;

CREATE TABLE events_by_commit (
  thread INTEGER NOT NULL REFERENCES threads (n) ON DELETE CASCADE,
  last   INTEGER NOT NULL,                  -- number of the row's newest event
  at     INTEGER NOT NULL,
  body   TEXT    NOT NULL,                  -- JSON: the events of one commit, oldest first
  PRIMARY KEY (thread, last)
) STRICT, WITHOUT ROWID;
INSERT INTO events_by_commit (thread, last, at, body) SELECT thread, seq, at, '[' || body || ']' FROM events;
DROP TABLE events;
ALTER TABLE events_by_commit RENAME TO events;

-- Known from `events`, where it stands already.
ALTER TABLE threads DROP COLUMN last_event;
