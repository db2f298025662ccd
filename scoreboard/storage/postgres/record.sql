-- Records a batch of actions on all boards: one statement, one transaction.
--
-- 1. Lock order of every writer: users by id, action_keys by (user, id), scores by user, board_scores by its key.
--    A user who vanished is an outcome ("gone"), not an error. Nothing is recorded for a user with a ban of kind 2
--    (domain/bans); "ban" tells which users are hidden. The lock FOR KEY SHARE makes it exact, see users_id_ban.
-- 2. The order number of an action is its batch's commits.id * 4096 + its place. It is the same in every store,
--    whatever order two nodes commit in. A new total's version is that number too: newer than any version of a total
--    that was there and was deleted.
-- 3. Nothing is recorded and no row is returned when the writer's sequence before $9 is not there (this database is
--    an older one that was restored), or when a writer can't reach Redis now and $10 does not say that the rate limits
--    were asked of this database.
-- 4. Every action counts for `leaderboard`, whose totals are in `scores`. $11 to $14 say which actions count for other
--    boards too. A node that has the leaderboard alone leaves out these arguments and all lines that end in "boards" as
--    a comment: they cost a quarter of a small batch. The join with totals has scores locked before board_scores.
--
-- $1 users, $2 action ids, $3 types, $4 points, $5 signatures, $6 metadata, $7 body digests. (user, action id) is
-- unique.
-- $8 writer, $9 sequence (the column `turn`), $10 limits are checked.
-- $11 places of actions, $12 names, $13 periods, $14 segments of the boards that they feed.
WITH batch AS MATERIALIZED (
    SELECT nextval('commit_ids') AS id
    WHERE ($9 = 1 OR EXISTS (SELECT FROM commits WHERE writer = $8 AND turn = $9 - 1))
      AND ($10 OR NOT EXISTS (SELECT FROM detached_writers))
),
input AS (
    SELECT * FROM batch, unnest($1::uuid[], $2::text[], $3::text[], $4::int[], $5::text[], $6::jsonb[], $7::bytea[])
        WITH ORDINALITY AS t(user_id, action_id, action_type, points, signature, metadata, digest, place)
),
actors AS MATERIALIZED (
    SELECT id, ban FROM users WHERE id = ANY($1) ORDER BY id FOR KEY SHARE
),
fresh AS (
    INSERT INTO action_keys (user_id, action_id, body_sha256)
    SELECT user_id, action_id, digest FROM input JOIN actors ON actors.id = user_id WHERE ban < 2
    ORDER BY user_id, action_id
    ON CONFLICT DO NOTHING
    RETURNING user_id, action_id
),
admitted AS (
    SELECT i.*, i.id * 4096 + place AS seq, sum(points) OVER (PARTITION BY user_id ORDER BY place) AS running
    FROM input i JOIN fresh USING (user_id, action_id)
),
sums AS (
    SELECT user_id, sum(points) AS points, max(seq) AS reached FROM admitted GROUP BY user_id
),
totals AS (
    INSERT INTO scores AS s (user_id, total_score, reached, version)
    SELECT user_id, points, reached, reached FROM sums ORDER BY user_id
    ON CONFLICT (user_id) DO UPDATE SET
        total_score = s.total_score + excluded.total_score,
        reached = greatest(s.reached, excluded.reached),
        version = s.version + 1,
        updated_at = now()
    RETURNING user_id, total_score, reached, version
),
logged AS (
    INSERT INTO action_logs (user_id, action_id, action_type, points_awarded, new_score, seq, signature, metadata)
    SELECT a.user_id, action_id, action_type, a.points, total_score - sums.points + running, seq, signature, metadata
    FROM admitted a JOIN totals USING (user_id) JOIN sums USING (user_id)
    RETURNING user_id, action_id, new_score
),
board_sums AS ( -- boards
    SELECT f.board, f.period, f.segment, user_id, sum(a.points) AS points, max(seq) AS reached -- boards
    FROM unnest($11::bigint[], $12::text[], $13::text[], $14::text[]) AS f(place, board, period, segment) -- boards
    JOIN admitted a USING (place) JOIN totals USING (user_id) -- boards
    GROUP BY f.board, f.period, f.segment, user_id -- boards
), -- boards
board_totals AS ( -- boards
    INSERT INTO board_scores AS s (board, period, segment, subject, total, reached, version) -- boards
    SELECT board, period, segment, user_id, points, reached, reached -- boards
    FROM board_sums ORDER BY board, period, segment, user_id -- boards
    ON CONFLICT (board, period, segment, subject) DO UPDATE SET -- boards
        total = s.total + excluded.total, -- boards
        reached = greatest(s.reached, excluded.reached), -- boards
        version = s.version + 1, -- boards
        updated_at = now() -- boards
    RETURNING board, period, segment, subject, total, reached, version -- boards
), -- boards
noted AS (
    INSERT INTO commits (
        boards, -- boards
        id, writer, turn, users
    )
    SELECT
        ARRAY['leaderboard'] || ARRAY(SELECT DISTINCT board_id(board, period, segment) FROM board_totals), -- boards
        min(batch.id), $8, $9, array_agg(user_id)
    FROM totals CROSS JOIN batch HAVING count(*) > 0
)
SELECT
    CASE WHEN i.place = 1 THEN -- boards
        (SELECT array_agg((board_id(board, period, segment), subject, total, reached, version)) -- boards
         FROM board_totals) -- boards
    END AS board_rows, -- boards
    a.id IS NULL AS gone, a.ban, l.new_score, t.total_score, t.reached, t.version,
    (extract(epoch FROM now()) * 1000)::bigint AS at_ms
FROM input i
LEFT JOIN actors a ON a.id = i.user_id
LEFT JOIN logged l USING (user_id, action_id)
LEFT JOIN totals t ON t.user_id = i.user_id
ORDER BY i.place
