-- The transparency log: a Merkle tree over every row of action_logs and audit_events, in the order of their numbers.
-- domain/log_records says what a leaf is, storage/sealing how the tree grows. Rows of the tree are only ever added.

-- For the sealer and the anomaly rules, which read the log in its order. New rows go to the right-most page.
CREATE INDEX action_logs_seq ON action_logs (seq);

-- What the salts of a user's leaves are made of. It goes with the user: then a leaf tells nothing any more.
CREATE TABLE log_secrets (
    user_id         UUID PRIMARY KEY REFERENCES users(id) ON DELETE CASCADE,
    secret          BYTEA NOT NULL
);

-- The same for audit_events, which are never erased.
CREATE TABLE log_event_secret (
    one             BOOLEAN PRIMARY KEY DEFAULT true CHECK (one),
    secret          BYTEA NOT NULL
);
INSERT INTO log_event_secret (secret)
VALUES (sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())));

-- The leaves of one batch of the sealer, from leaf `first` on: their order numbers, and the users they are about (NULL:
-- none). So it is known which leaves are there of users who were erased.
CREATE TABLE log_leaves (
    first           BIGINT PRIMARY KEY CHECK (first >= 0),
    first_order     BIGINT NOT NULL,
    orders          BIGINT[] NOT NULL,
    subjects        UUID[] NOT NULL,
    sealed_at       TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now()
);
CREATE INDEX log_leaves_order ON log_leaves (first_order);

-- Hashes of the complete subtrees with 2^level leaves, 32 bytes each, from index `first` on: those that a batch made
-- complete. Level 0 has the leaves themselves. Hashes can't be compressed, and are read in parts.
CREATE TABLE log_nodes (
    level           SMALLINT NOT NULL CHECK (level BETWEEN 0 AND 62),
    first           BIGINT NOT NULL CHECK (first >= 0),
    hashes          BYTEA NOT NULL,
    PRIMARY KEY (level, first)
);
ALTER TABLE log_nodes ALTER COLUMN hashes SET STORAGE EXTERNAL;

-- Signed checkpoints, kept for ever: at most one a minute.
CREATE TABLE log_checkpoints (
    size            BIGINT PRIMARY KEY CHECK (size > 0),
    note            TEXT NOT NULL,
    signed_at       TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now()
);

CREATE TRIGGER log_leaves_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON log_leaves
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER log_nodes_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON log_nodes
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER log_checkpoints_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON log_checkpoints
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
