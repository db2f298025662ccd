-- Anomalies: up to which action of the log they were looked for, what was found, and messages to other servers.

-- Order numbers below `below` were looked at. Actions before this migration were not recorded for it.
CREATE TABLE anomaly_watermark (
    one             BOOLEAN PRIMARY KEY DEFAULT true CHECK (one),
    below           BIGINT NOT NULL
);
INSERT INTO anomaly_watermark (below) SELECT (last_value + is_called::int) * 4096 FROM commit_ids;

-- What a rule found about a user. While a flag is open it absorbs further hits of its rule and user, so that nobody has
-- more than one of each; `seq` is the action of the first. `scope`: of what is found about many users at once, once.
-- Rows go with their user; decided ones are pruned after a year, open ones are bounded by users and rules.
CREATE TABLE flags (
    id              BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rule            VARCHAR(30) NOT NULL,
    user_id         UUID NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    evidence        JSONB NOT NULL,
    seq             BIGINT,
    scope           BYTEA,
    hits            INTEGER NOT NULL DEFAULT 1,
    created_at      TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
    last_hit_at     TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
    state           VARCHAR(10) NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'approved', 'revoked')),
    decided_by      VARCHAR(100),
    reason          VARCHAR(500),
    decided_at      TIMESTAMP WITH TIME ZONE
);

CREATE UNIQUE INDEX flags_open ON flags (rule, user_id) WHERE state = 'open' AND scope IS NULL;
CREATE UNIQUE INDEX flags_scope ON flags (rule, scope) WHERE scope IS NOT NULL;
CREATE INDEX flags_user ON flags (user_id, rule, decided_at);    -- decisions of late, and the deletion of a user
CREATE INDEX flags_state ON flags (state, id);                   -- the list
CREATE INDEX flags_decided ON flags (decided_at) WHERE decided_at IS NOT NULL;  -- pruning

-- From which network a user has logged in: an HMAC of the network whose key changes every month, so that rows of two
-- months can't be compared, and none says where somebody was. Pruned after 35 days.
CREATE TABLE log_in_networks (
    network         BYTEA NOT NULL,
    user_id         UUID NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    seen_at         TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
    PRIMARY KEY (network, user_id)
);

CREATE INDEX log_in_networks_user ON log_in_networks (user_id);  -- the deletion of a user
CREATE INDEX log_in_networks_seen ON log_in_networks (seen_at);  -- pruning

-- Messages to servers that the settings name, each for one channel. `key` says what a message tells of: it is told once.
-- `due_at` of a pending one is the next try, or the end of the time that the node which is sending it has.
-- Sent ones are pruned after a week, dead ones after thirty days; so many are pending at most, see the code.
CREATE TABLE outgoing_messages (
    id              UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    channel         VARCHAR(30) NOT NULL,
    kind            VARCHAR(50) NOT NULL,
    key             VARCHAR(200) NOT NULL,
    summary         VARCHAR(1000) NOT NULL,
    data            JSONB NOT NULL,
    state           VARCHAR(10) NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'sent', 'dead')),
    tries           INTEGER NOT NULL DEFAULT 0,
    last_error      VARCHAR(300),
    created_at      TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
    due_at          TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
    ended_at        TIMESTAMP WITH TIME ZONE,
    UNIQUE (channel, key)
);

CREATE INDEX outgoing_messages_due ON outgoing_messages (due_at) WHERE state = 'pending';
CREATE INDEX outgoing_messages_ended ON outgoing_messages (ended_at) WHERE state <> 'pending';
