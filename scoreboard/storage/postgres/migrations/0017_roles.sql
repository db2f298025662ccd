-- What the app's role may not do by itself where another role owns the tables: these two functions do it with the
-- owner's rights, and nothing else. storage/postgres/roles grants them. Temporary tables come last in the search path,
-- so that a caller can't put one in the place of a table.
SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true);

-- Removes a user and all that refers to him, and says so in the log. False: there is no such user.
CREATE FUNCTION erase_user(erased UUID, erased_by TEXT) RETURNS BOOLEAN
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM users WHERE id = erased;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO audit_events (id, kind, actor, subject)
    VALUES (nextval('commit_ids') * 4096, 'user_erased', erased_by, erased);
    RETURN true;
END
$$;

-- Makes the partition of action_logs for one month, and moves its rows there from the default partition.
CREATE FUNCTION make_log_partition(month DATE) RETURNS VOID
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET timezone TO 'UTC' AS $$
DECLARE
    lower TIMESTAMP WITH TIME ZONE := date_trunc('month', month::timestamp);
    upper TIMESTAMP WITH TIME ZONE := date_trunc('month', month::timestamp) + interval '1 month';
    name TEXT := to_char(month, '"action_logs_"YYYY_MM');
BEGIN
    LOCK TABLE action_logs_default IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('CREATE TABLE %I (LIKE action_logs INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name);
    EXECUTE format(
        'WITH moved AS (
            DELETE FROM action_logs_default WHERE processed_at >= %L AND processed_at < %L RETURNING *
        )
        INSERT INTO %I SELECT * FROM moved', lower, upper, name);
    EXECUTE format('ALTER TABLE action_logs ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, lower, upper);
END
$$;

REVOKE EXECUTE ON FUNCTION erase_user(UUID, TEXT), make_log_partition(DATE) FROM PUBLIC;
