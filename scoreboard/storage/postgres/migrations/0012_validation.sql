-- Server-side validation: starts of actions, evidence, and actions that wait for a decision.

-- An action of a started type names one of these. `used_by`: the action id that it was used for; a row is used once.
CREATE TABLE action_starts (
    id              UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id         UUID NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    action_type     VARCHAR(50) NOT NULL,
    started_at      TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT clock_timestamp(),
    expires_at      TIMESTAMP WITH TIME ZONE NOT NULL,
    used_by         VARCHAR(100)
);

CREATE INDEX action_starts_user ON action_starts (user_id, started_at DESC);
CREATE INDEX action_starts_expired ON action_starts (expires_at);

-- Actions that wait for a decision, and decided ones for a while. The action id is taken in action_keys while an action
-- waits and after a refusal. An approval removes that key, and records the action in the same transaction.
-- `points`: what the type's rule gave when the action was sent. `undecided`: what happens at `expires_at`.
-- `keep_until`: set by the decision; then the row is deleted, and its evidence with it.
CREATE TABLE held_actions (
    id              BIGINT GENERATED ALWAYS AS IDENTITY UNIQUE,
    user_id         UUID NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    action_id       VARCHAR(100) NOT NULL,
    action_type     VARCHAR(50) NOT NULL,
    points          INTEGER NOT NULL,
    timestamp_ms    BIGINT NOT NULL,
    signature       VARCHAR(500) NOT NULL,
    metadata        JSONB,
    body_sha256     BYTEA NOT NULL,
    evidence_sha256 BYTEA,
    evidence_size   INTEGER,
    held_at         TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
    expires_at      TIMESTAMP WITH TIME ZONE NOT NULL,
    undecided       VARCHAR(10) NOT NULL CHECK (undecided IN ('approve', 'refuse')),
    retention_days  INTEGER NOT NULL,
    status          VARCHAR(10) NOT NULL DEFAULT 'held' CHECK (status IN ('held', 'approved', 'refused')),
    decided_at      TIMESTAMP WITH TIME ZONE,
    decided_by      VARCHAR(100),
    reason          VARCHAR(500),
    keep_until      TIMESTAMP WITH TIME ZONE,
    PRIMARY KEY (user_id, action_id),
    CHECK ((status = 'held') = (decided_at IS NULL))
);

CREATE INDEX held_actions_user ON held_actions (user_id, id DESC);
CREATE INDEX held_actions_newest ON held_actions (held_at);
CREATE INDEX held_actions_waiting ON held_actions (expires_at) WHERE status = 'held';
CREATE INDEX held_actions_decided ON held_actions (keep_until) WHERE status <> 'held';
CREATE INDEX held_actions_evidence ON held_actions (user_id, evidence_sha256) WHERE evidence_sha256 IS NOT NULL;

-- What users sent as evidence, by its hash. A user's own: the same bytes of two users are two rows.
CREATE TABLE evidence (
    user_id         UUID NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    sha256          BYTEA NOT NULL CHECK (length(sha256) = 32),
    content         BYTEA NOT NULL,
    uploaded_at     TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, sha256)
);

ALTER TABLE evidence ALTER COLUMN content SET STORAGE EXTERNAL;  -- replays are compressed already
CREATE INDEX evidence_uploaded ON evidence (uploaded_at);
