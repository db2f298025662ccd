-- What the policy of a rule has done because of a flag.

-- The ban that the flag has put on. It is lifted when a moderator approves.
ALTER TABLE flags ADD COLUMN ban_id BIGINT;

-- Users whose actions wait for a moderator because of an open flag. A row goes with the decision, and with the user.
CREATE TABLE user_holds (
    user_id         UUID NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    flag_id         BIGINT NOT NULL REFERENCES flags(id) ON DELETE CASCADE,
    created_at      TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, flag_id)
);

CREATE INDEX user_holds_flag ON user_holds (flag_id);  -- the end of a flag
