-- That somebody has stopped a run: it is stopped by whoever finds it under way.
ALTER TABLE api_runs ADD COLUMN cancel TEXT;                              -- JSON AskedCancel; NULL: nobody has
