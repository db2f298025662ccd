-- Who changed what, besides the actions of users, which action_logs has: corrections, bans, roles, keys, erasures.

-- `id` is in one order with action_logs.seq: commit_ids * 4096. `actor`: who did it, see domain/audit. `subject`: the
-- user it is about; without a foreign key, since the event outlives its user.
CREATE TABLE audit_events (
    id              BIGINT PRIMARY KEY,
    kind            VARCHAR(50) NOT NULL,
    actor           VARCHAR(100) NOT NULL,
    subject         UUID,
    details         JSONB NOT NULL DEFAULT '{}',
    created_at      TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now()
);

CREATE INDEX audit_events_subject ON audit_events (subject, id DESC) WHERE subject IS NOT NULL;

-- Nothing changes or removes an event. (The owner of the table can drop the trigger; the transparency log finds that.)
CREATE FUNCTION refuse_change() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are never changed or removed', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TRIGGER audit_events_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
