-- Boards beside `leaderboard`, whose totals stay in `scores`: their totals, and which boards a row of `commits`
-- touched. A node of the version before may run beside this one: what it writes touches `leaderboard` alone, as the
-- default says.

-- `reached` and `version` mean what they mean in `scores`. There is no index on totals: an update that changes no
-- indexed column stays on its page (HOT), and ranks are asked of Redis.
CREATE TABLE board_scores (
    board           VARCHAR(100) NOT NULL,
    period          VARCHAR(50) NOT NULL DEFAULT '',
    segment         VARCHAR(100) NOT NULL DEFAULT '',
    subject         UUID NOT NULL,
    total           BIGINT NOT NULL DEFAULT 0,
    reached         BIGINT NOT NULL,
    version         BIGINT NOT NULL,
    metadata        JSONB,
    updated_at      TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT NOW(),
    PRIMARY KEY (board, period, segment, subject),
    CONSTRAINT board_scores_total_exact CHECK (total BETWEEN 0 AND 9007199254740991)
) WITH (fillfactor = 85);

-- For users who are deleted.
CREATE INDEX idx_board_scores_subject ON board_scores (subject);

-- The id of a board, as everything outside this database names it (Board.id in the code).
CREATE FUNCTION board_id(board TEXT, period TEXT, segment TEXT) RETURNS TEXT
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT concat_ws(':', board, nullif(period, ''), nullif(segment, ''))
$$;

-- Ids of the boards on which the row's users may have another total, or none.
ALTER TABLE commits ADD COLUMN boards TEXT[] NOT NULL DEFAULT '{leaderboard}';

-- As note_change of migration 0003, with the boards.
CREATE FUNCTION note_change(changed UUID[], of_names BOOLEAN, of_boards TEXT[]) RETURNS VOID
LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS $$
    INSERT INTO commits (id, writer, turn, users, names, boards)
    SELECT nextval('commit_ids'), session.writer,
           coalesce((SELECT max(turn) FROM commits WHERE writer = session.writer), 0) + 1, changed, of_names, of_boards
    FROM (
        SELECT hashtextextended(pg_backend_pid()::text || pg_postmaster_start_time()::text, 0)
               & 9223372036854775807 AS writer
    ) session
$$;

-- A total that anybody but a committer writes gets the newest version, so that every projection takes it. A row that
-- moves to another board or subject is gone from where it was.
CREATE FUNCTION note_board_score() RETURNS TRIGGER LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    NEW.version := nextval('commit_ids') * 4096;
    IF TG_OP = 'UPDATE' AND
        (OLD.board, OLD.period, OLD.segment, OLD.subject) <> (NEW.board, NEW.period, NEW.segment, NEW.subject) THEN
        PERFORM note_change(ARRAY[OLD.subject], false, ARRAY[board_id(OLD.board, OLD.period, OLD.segment)]);
    END IF;
    PERFORM note_change(ARRAY[NEW.subject], false, ARRAY[board_id(NEW.board, NEW.period, NEW.segment)]);
    RETURN NEW;
END
$$;

CREATE TRIGGER board_scores_written BEFORE INSERT OR UPDATE ON board_scores FOR EACH ROW
    WHEN (current_setting('application_name') <> 'scoreboard committer') EXECUTE FUNCTION note_board_score();

-- Deleted totals, a thousand subjects a row.
CREATE FUNCTION note_deleted_board_scores() RETURNS TRIGGER
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM note_change(portion.subjects, false, ARRAY[portion.id]) FROM (
        SELECT id, array_agg(subject) AS subjects FROM (
            SELECT board_id(board, period, segment) AS id, subject,
                   row_number() OVER (PARTITION BY board, period, segment) AS place
            FROM deleted
        ) numbered GROUP BY id, place / 1000
    ) portion;
    RETURN NULL;
END
$$;

CREATE TRIGGER board_scores_deleted AFTER DELETE ON board_scores REFERENCING OLD TABLE AS deleted
    FOR EACH STATEMENT EXECUTE FUNCTION note_deleted_board_scores();

CREATE TRIGGER board_scores_truncated AFTER TRUNCATE ON board_scores
    FOR EACH STATEMENT EXECUTE FUNCTION note_truncated_scores();

-- Subjects are not always users, so there is no foreign key: totals of deleted users go with them by these.
CREATE FUNCTION delete_board_scores() RETURNS TRIGGER
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM board_scores WHERE subject IN (SELECT id FROM deleted);
    RETURN NULL;
END
$$;

CREATE TRIGGER users_deleted AFTER DELETE ON users REFERENCING OLD TABLE AS deleted
    FOR EACH STATEMENT EXECUTE FUNCTION delete_board_scores();

CREATE FUNCTION truncate_board_scores() RETURNS TRIGGER
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    TRUNCATE board_scores;
    RETURN NULL;
END
$$;

CREATE TRIGGER users_truncated AFTER TRUNCATE ON users FOR EACH STATEMENT EXECUTE FUNCTION truncate_board_scores();
