-- Users, scores, the action log and the outbox. Columns and types are the specification's; what it lacks is explained where it stands.

CREATE TABLE users (
    id              UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    username        VARCHAR(50) NOT NULL UNIQUE,
    email           VARCHAR(255) NOT NULL UNIQUE,
    avatar_url      VARCHAR(500),
    created_at      TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
    updated_at      TIMESTAMP WITH TIME ZONE DEFAULT NOW()
);

-- `reached`: order number of the action that last changed the total; ties go to the lower. `version`: rises with every change of the row,
-- so that a projection can tell the newer of two. The bound is the largest integer that a JSON reader holds exactly.
CREATE TABLE scores (
    id              UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id         UUID NOT NULL UNIQUE REFERENCES users(id) ON DELETE CASCADE,
    total_score     BIGINT NOT NULL DEFAULT 0,
    reached         BIGINT NOT NULL,
    version         BIGINT NOT NULL,
    updated_at      TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
    CONSTRAINT scores_total_score_exact CHECK (total_score BETWEEN 0 AND 9007199254740991)
);

-- The board's exact order. It begins with the specification's total_score DESC and so serves its queries too.
CREATE INDEX idx_scores_total_score_desc ON scores (total_score DESC, reached);

-- The idempotency authority: one row an action, for ever. Not partitioned, since a unique index can't span partitions by date.
CREATE TABLE action_keys (
    user_id         UUID NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    action_id       VARCHAR(100) NOT NULL,
    body_sha256     BYTEA NOT NULL,
    processed_at    TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT NOW(),
    PRIMARY KEY (user_id, action_id)
);

-- The audit log and the outcome of every action. `seq` is its place in the order of all actions (commits.id * 4096 + place in the batch).
CREATE TABLE action_logs (
    id              UUID NOT NULL DEFAULT gen_random_uuid(),
    user_id         UUID NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    action_id       VARCHAR(100) NOT NULL,
    action_type     VARCHAR(50) NOT NULL,
    points_awarded  INTEGER NOT NULL,
    new_score       BIGINT NOT NULL,
    seq             BIGINT NOT NULL,
    signature       VARCHAR(500) NOT NULL,
    metadata        JSONB,
    processed_at    TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT NOW(),
    created_at      TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
    PRIMARY KEY (id, processed_at)
) PARTITION BY RANGE (processed_at);

-- A user's history, newest first. An action's id is looked up by way of action_keys, which gives its user and its partition.
CREATE INDEX idx_action_logs_user_id ON action_logs (user_id, processed_at DESC);

-- Catches what no month's partition takes. The server makes partitions three months ahead (storage/partitions).
CREATE TABLE action_logs_default PARTITION OF action_logs DEFAULT;

-- One row a batch: outbox and watermark of every projection. `turn` counts a writer's batches without a gap.
CREATE TABLE commits (
    id              BIGINT NOT NULL UNIQUE,
    writer          BIGINT NOT NULL,
    turn            BIGINT NOT NULL,
    users           UUID[] NOT NULL,
    committed_at    TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT NOW(),
    PRIMARY KEY (writer, turn)
);

CREATE SEQUENCE commit_ids;

-- Numbers the incarnations of the Redis boards: never reused, so that nothing of an older one passes for new.
CREATE SEQUENCE board_epochs;
