-- What people log in with, and what each log-in led to. Nothing secret stands here in the clear: passwords as argon2id, refresh tokens as SHA-256.

-- Names and addresses are one whatever their case. pg_c_utf8 folds every script alike on every machine, whatever the database's own locale.
CREATE UNIQUE INDEX users_username_folded ON users (lower(username COLLATE pg_c_utf8));
CREATE UNIQUE INDEX users_email_folded ON users (lower(email COLLATE pg_c_utf8));

-- Apart from users, so that no query for a profile can return a hash by mistake. A user without a row cannot log in.
CREATE TABLE credentials (
    user_id         UUID PRIMARY KEY REFERENCES users(id) ON DELETE CASCADE,
    password_hash   TEXT NOT NULL,
    updated_at      TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT NOW()
);

-- One row a log-in; its id is the `sid` of every token that came of it. `token_sha256` is the live refresh token, `spent_sha256` the one spent
-- last, at `rotated_at`: for a few seconds its successor is made again. `expires_at` moves on with every refresh.
CREATE TABLE sessions (
    id              UUID PRIMARY KEY,
    user_id         UUID NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    token_sha256    BYTEA NOT NULL,
    spent_sha256    BYTEA,
    rotated_at      TIMESTAMP WITH TIME ZONE,
    created_at      TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT NOW(),
    expires_at      TIMESTAMP WITH TIME ZONE NOT NULL,
    revoked_at      TIMESTAMP WITH TIME ZONE
);

CREATE INDEX sessions_user ON sessions (user_id);                                     -- the deletion of a user
CREATE INDEX sessions_revoked ON sessions (revoked_at) WHERE revoked_at IS NOT NULL;  -- every node asks every two seconds what is new here
CREATE INDEX sessions_expiry ON sessions (expires_at);                                -- pruning
