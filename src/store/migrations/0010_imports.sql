-- A record from elsewhere, which nobody advances here.
ALTER TABLE threads ADD COLUMN imported TEXT;                             -- JSON Imported; NULL: a thread of this home
