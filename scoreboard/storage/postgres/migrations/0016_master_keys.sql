-- Versions of the key that action secrets are derived from, beside those of the settings.

-- A version that `scoreboard keys rotate` made is here, encrypted (`wrapped`) with the master key `wrapped_by` of the
-- settings: every node can read it, and a dump of this database alone can't. A version of the settings has a row, without
-- a key, once it was retired or revoked. `active_at`: from when on new secrets are made with it; every node knows it by
-- then. `ends_at`: from when on it verifies no more. Rows are kept: a retired version must not come back, and a number is
-- never used again. There is one for each rotation.
CREATE TABLE master_keys (
    version         INTEGER PRIMARY KEY CHECK (version > 0),
    wrapped         BYTEA,
    wrapped_by      INTEGER,
    created_at      TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
    active_at       TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
    ends_at         TIMESTAMP WITH TIME ZONE,
    revoked_at      TIMESTAMP WITH TIME ZONE
);
