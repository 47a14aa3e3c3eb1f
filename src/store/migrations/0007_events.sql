-- Events lie as checkpoints do, by one number: rows that are only ever added behind their thread's newest split no pages between them.
CREATE TABLE events_by_number (
  n    INTEGER PRIMARY KEY,                 -- (thread << 32) + number of the row's newest event
  at   INTEGER NOT NULL,
  body TEXT    NOT NULL                     -- JSON: the events of one commit, oldest first
) STRICT;
INSERT INTO events_by_number (n, at, body) SELECT (thread << 32) + last, at, body FROM events ORDER BY thread, last;
DROP TABLE events;
ALTER TABLE events_by_number RENAME TO events;
-- What a foreign key would do.
CREATE TRIGGER threads_take_their_events AFTER DELETE ON threads
BEGIN DELETE FROM events WHERE n > OLD.n << 32 AND n < (OLD.n + 1) << 32; END;
