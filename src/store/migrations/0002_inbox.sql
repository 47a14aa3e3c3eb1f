-- What others leave for whoever advances a thread.
ALTER TABLE threads ADD COLUMN stop TEXT;                               -- JSON StopAsk; NULL: nobody asks
ALTER TABLE threads ADD COLUMN stop_epoch INTEGER NOT NULL DEFAULT 0;   -- the epoch of the owner that is asked
ALTER TABLE threads ADD COLUMN seen INTEGER NOT NULL DEFAULT 0;         -- how many answers the newest run knew when it began
