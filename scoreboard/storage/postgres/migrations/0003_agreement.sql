-- What nodes need to know whether the boards in Redis agree with this database, also after others have changed it, or an older copy of it was restored.

-- Which installation this is: boards of another one that shares the Redis are not ours. Copies of the database keep it.
CREATE TABLE installation (
    one             BOOLEAN PRIMARY KEY DEFAULT true CHECK (one),
    id              UUID NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO installation DEFAULT VALUES;

-- Writers that can't reach Redis now: their actions are neither on the boards nor in the windows of the rate limits until it is over. A writer
-- that has not been `seen_at` for some seconds is dead.
CREATE TABLE detached_writers (
    writer          BIGINT PRIMARY KEY,
    seen_at         TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT clock_timestamp()
);

-- Whether the row is about names or pictures.
ALTER TABLE commits ADD COLUMN names BOOLEAN NOT NULL DEFAULT false;

-- Writes a row of `commits` for a change that no committer made. Each server process is a writer of its own: it runs one transaction at a
-- time, so its sequence has no gap, also when its number is used again. These functions run with our rights and our search path, whoever
-- changes the tables, by whatever means.
CREATE FUNCTION note_change(changed UUID[], of_names BOOLEAN) RETURNS VOID LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS $$
    INSERT INTO commits (id, writer, turn, users, names)
    SELECT nextval('commit_ids'), session.writer,
           coalesce((SELECT max(turn) FROM commits WHERE writer = session.writer), 0) + 1, changed, of_names
    FROM (SELECT hashtextextended(pg_backend_pid()::text || pg_postmaster_start_time()::text, 0) & 9223372036854775807 AS writer) session
$$;

-- A score that anybody but a committer writes gets the newest version, so that every projection takes it.
CREATE FUNCTION note_score() RETURNS TRIGGER LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    NEW.version := nextval('commit_ids') * 4096;
    PERFORM note_change(ARRAY[NEW.user_id], false);
    RETURN NEW;
END
$$;

CREATE TRIGGER scores_written BEFORE INSERT OR UPDATE ON scores FOR EACH ROW
    WHEN (current_setting('application_name') <> 'scoreboard committer') EXECUTE FUNCTION note_score();

-- Deleted scores, those of deleted users among them; a thousand users a row.
CREATE FUNCTION note_deleted_scores() RETURNS TRIGGER LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM note_change(portion.users, false) FROM (
        SELECT array_agg(user_id) AS users FROM (SELECT user_id, row_number() OVER () AS place FROM deleted) numbered GROUP BY place / 1000
    ) portion;
    RETURN NULL;
END
$$;

CREATE TRIGGER scores_deleted AFTER DELETE ON scores REFERENCING OLD TABLE AS deleted FOR EACH STATEMENT EXECUTE FUNCTION note_deleted_scores();

-- TRUNCATE has no rows. A sequence that begins at 2 is one whose beginning is lost: every projection is built anew.
CREATE FUNCTION note_truncated_scores() RETURNS TRIGGER LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO commits (id, writer, turn, users)
    VALUES (nextval('commit_ids'), hashtextextended(gen_random_uuid()::text, 0) & 9223372036854775807, 2, '{}');
    RETURN NULL;
END
$$;

CREATE TRIGGER scores_truncated AFTER TRUNCATE ON scores FOR EACH STATEMENT EXECUTE FUNCTION note_truncated_scores();

-- A name or a picture that is on a board.
CREATE FUNCTION note_name() RETURNS TRIGGER LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM note_change(ARRAY[NEW.id], true) FROM scores WHERE user_id = NEW.id;
    RETURN NULL;
END
$$;

CREATE TRIGGER users_renamed AFTER UPDATE OF username, avatar_url ON users FOR EACH ROW
    WHEN (OLD.username IS DISTINCT FROM NEW.username OR OLD.avatar_url IS DISTINCT FROM NEW.avatar_url) EXECUTE FUNCTION note_name();
