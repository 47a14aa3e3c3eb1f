-- What all threads share, by namespace (its parts joined by /) and key.
CREATE TABLE items (
  namespace  TEXT    NOT NULL,
  key        TEXT    NOT NULL,
  value      TEXT    NOT NULL,           -- JSON
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  expires_at INTEGER,                    -- NULL: never
  PRIMARY KEY (namespace, key)
) STRICT, WITHOUT ROWID;
