-- A session's row outlives its user, so that every node reads from it that the session has ended. Pruning takes it later.
ALTER TABLE sessions
    ALTER COLUMN user_id DROP NOT NULL,
    DROP CONSTRAINT sessions_user_id_fkey,
    ADD CONSTRAINT sessions_user_id_fkey FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE SET NULL;

-- Whoever deletes the user, by whatever means. Stamped as the transaction ends, since it may have taken minutes, and nodes read back some
-- seconds only.
CREATE FUNCTION end_session_of_deleted_user() RETURNS TRIGGER LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE sessions SET revoked_at = clock_timestamp() WHERE id = NEW.id;
    RETURN NULL;
END
$$;

CREATE CONSTRAINT TRIGGER sessions_user_deleted AFTER UPDATE OF user_id ON sessions DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (OLD.user_id IS NOT NULL AND NEW.user_id IS NULL) EXECUTE FUNCTION end_session_of_deleted_user();
