-- Roles, bans, notes and reversals. What a moderator decides is a row of its own: no row of action_logs is changed, and
-- nothing here is removed but with its user. `id` is in one order with action_logs.seq and audit_events.id. `actor`:
-- see domain/audit. Reasons are written by people about people, so they stay in tables from which a user is erased.

-- What the user may do in /admin (domain/roles). NULL: nothing.
ALTER TABLE users ADD COLUMN role VARCHAR(20) CHECK (role IN ('viewer', 'moderator', 'admin'));

-- 0: none. 1: a shadow ban, only the user sees himself on boards. 2: a ban, he is on no board and submits nothing.
ALTER TABLE users ADD COLUMN ban SMALLINT NOT NULL DEFAULT 0 CHECK (ban BETWEEN 0 AND 2);

CREATE INDEX users_roles ON users (id) WHERE role IS NOT NULL;           -- who has one
CREATE INDEX users_bans ON users (id) INCLUDE (ban) WHERE ban <> 0;      -- who is left out of every board

-- Makes `ban` a part of a key. So an update of it waits for every batch that has locked the user FOR KEY SHARE, and a
-- batch that comes later waits for the update and reads the new value. For a column that is in no key, both would pass
-- one another, and a batch could bring a banned user back.
CREATE UNIQUE INDEX users_id_ban ON users (id, ban);

-- The history of bans. `users.ban` has the kind of the one in force, so that no statement about boards needs this table.
CREATE TABLE bans (
    id              BIGINT PRIMARY KEY,
    user_id         UUID NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    kind            SMALLINT NOT NULL CHECK (kind IN (1, 2)),
    reason          VARCHAR(1000) NOT NULL,
    is_reason_shown BOOLEAN NOT NULL DEFAULT false,
    actor           VARCHAR(100) NOT NULL,
    created_at      TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
    lifted_at       TIMESTAMP WITH TIME ZONE,
    lifted_by       VARCHAR(100)
);

CREATE UNIQUE INDEX bans_in_force ON bans (user_id) WHERE lifted_at IS NULL;
CREATE INDEX bans_user ON bans (user_id, id DESC);

-- Brings a ban, or its end, to every board, by whatever means it was written. No batch of the user is under way then
-- (users_id_ban), so the version that scores_written gives the total here is newer than that of every row from before.
CREATE FUNCTION note_ban() RETURNS TRIGGER LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE scores SET version = version WHERE user_id = NEW.id;
    UPDATE board_scores SET version = version WHERE subject = NEW.id;
    RETURN NULL;
END
$$;

CREATE TRIGGER users_ban_changed AFTER UPDATE OF ban ON users FOR EACH ROW
    WHEN (OLD.ban IS DISTINCT FROM NEW.ban) EXECUTE FUNCTION note_ban();

-- Actions that do not count. `points`: what was taken off each total: [[board, period, segment, points], …]; `leaderboard`
-- is the board of `scores`. An undone reversal stays, and the action may be reversed again.
CREATE TABLE reversals (
    id              BIGINT PRIMARY KEY,
    user_id         UUID NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    action_id       VARCHAR(100) NOT NULL,
    seq             BIGINT NOT NULL,
    points          JSONB NOT NULL,
    reason          VARCHAR(1000) NOT NULL,
    actor           VARCHAR(100) NOT NULL,
    created_at      TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
    undone_at       TIMESTAMP WITH TIME ZONE,
    undone_by       VARCHAR(100)
);

CREATE UNIQUE INDEX reversals_in_force ON reversals (user_id, seq) WHERE undone_at IS NULL;
CREATE INDEX reversals_user ON reversals (user_id, id DESC);

CREATE TABLE user_notes (
    id              BIGINT PRIMARY KEY,
    user_id         UUID NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    note            VARCHAR(2000) NOT NULL,
    actor           VARCHAR(100) NOT NULL,
    created_at      TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now()
);

CREATE INDEX user_notes_user ON user_notes (user_id, id DESC);

-- For the log as the console shows it: the newest of one kind.
CREATE INDEX audit_events_kind ON audit_events (kind, id DESC);
