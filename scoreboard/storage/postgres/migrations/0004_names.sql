-- Which names look alike, and how often a profile is changed.

-- When the user's next profile change would be due if changes were spread evenly (GCRA's theoretical arrival time). NULL: long ago.
ALTER TABLE users ADD COLUMN profile_change_due TIMESTAMP WITH TIME ZONE;

-- One row a look (domain/skeletons). `freed_at` is NULL while a user has the name; a name that was given up, or whose user was deleted, rests for
-- a time for everybody but its last user. Users that were written by other means get their rows from housekeeping; of two whose names look
-- alike already, one has the row. C: a key is compared by its bytes.
CREATE TABLE username_skeletons (
    skeleton        TEXT COLLATE "C" PRIMARY KEY,
    user_id         UUID REFERENCES users(id) ON DELETE SET NULL,
    username        VARCHAR(50) NOT NULL,
    freed_at        TIMESTAMP WITH TIME ZONE
);

CREATE INDEX username_skeletons_user ON username_skeletons (user_id);                                    -- the deletion of a user
CREATE INDEX username_skeletons_freed ON username_skeletons (freed_at) WHERE freed_at IS NOT NULL;       -- pruning

CREATE FUNCTION note_freed_name() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    NEW.freed_at := coalesce(OLD.freed_at, now());
    RETURN NEW;
END
$$;

CREATE TRIGGER username_skeletons_freed BEFORE UPDATE OF user_id ON username_skeletons FOR EACH ROW
    WHEN (OLD.user_id IS NOT NULL AND NEW.user_id IS NULL) EXECUTE FUNCTION note_freed_name();
