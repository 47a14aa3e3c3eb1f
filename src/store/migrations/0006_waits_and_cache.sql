-- Only a signal that a wait waits for is anybody's business: before, any that had come since the newest run woke the thread.
ALTER TABLE threads ADD COLUMN listens TEXT;                              -- JSON list of names; NULL: no wait goes on
UPDATE threads SET listens = (
  SELECT json_group_array(s.value) FROM entries e, json_each(e.body, '$.input.signals') s
  WHERE e.thread = threads.n AND e.status = 'intent' AND json_extract(e.body, '$.kind') = 'wait'
) WHERE status IN ('sleeping', 'interrupted');
ALTER TABLE threads DROP COLUMN heard;

-- Whose result it is: what a thread has done may be undone, and then nobody may rely on it.
ALTER TABLE cache ADD COLUMN thread INTEGER;
CREATE INDEX cache_thread ON cache (thread);
