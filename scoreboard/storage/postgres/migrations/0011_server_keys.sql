-- Keys of game servers, which act for their users.

-- Rows are kept after a key is revoked: action_logs.signature and audit_events.actor name keys by id, and an operator
-- makes few. `secret_sha256`: of the whole key. `previous_sha256`: of the key before the last rotation, until
-- `previous_until`.
CREATE TABLE server_keys (
    id              VARCHAR(12) PRIMARY KEY,
    name            VARCHAR(80) NOT NULL,
    scopes          TEXT[] NOT NULL,
    secret_sha256   BYTEA NOT NULL,
    previous_sha256 BYTEA,
    previous_until  TIMESTAMP WITH TIME ZONE,
    created_at      TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
    rotated_at      TIMESTAMP WITH TIME ZONE,
    last_used_at    TIMESTAMP WITH TIME ZONE,
    expires_at      TIMESTAMP WITH TIME ZONE,
    revoked_at      TIMESTAMP WITH TIME ZONE
);

-- A name stands for one key at a time, so that commands may name it.
CREATE UNIQUE INDEX server_keys_name ON server_keys (lower(name)) WHERE revoked_at IS NULL;
