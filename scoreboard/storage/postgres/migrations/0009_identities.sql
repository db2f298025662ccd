-- Users who log in by something else than a password, and what a session's owner sees of it.

-- NULL: a user without an address, as guests are. Unique indexes take any number of NULLs.
ALTER TABLE users ALTER COLUMN email DROP NOT NULL;

-- Sets a user's address; false, and no change, when another user has it. An error that is caught here is not written
-- to PostgreSQL's log, which would contain the address.
CREATE FUNCTION set_email(whose UUID, address TEXT) RETURNS BOOLEAN LANGUAGE plpgsql AS $$
BEGIN
    UPDATE users SET email = address, updated_at = now() WHERE id = whose;
    RETURN true;
EXCEPTION WHEN unique_violation THEN
    RETURN false;
END
$$;

-- One row for each way by which somebody else identifies a user. `provider`: `device` (a guest's device key, whose
-- SHA-256 in hex is `external_id`), `server` (an id that a game's own server gave), or the name of an outside issuer.
-- Kept as long as the user.
CREATE TABLE identities (
    provider        VARCHAR(50) NOT NULL,
    external_id     VARCHAR(255) NOT NULL,
    user_id         UUID NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    created_at      TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
    PRIMARY KEY (provider, external_id)
);

CREATE INDEX identities_user ON identities (user_id);  -- the deletion of a user, and what a user is known by

-- Browser and system of the client that opened the session, as words ("Firefox on Linux"); NULL: not known.
ALTER TABLE sessions ADD COLUMN client VARCHAR(60);
