"""A real PostgreSQL and a real Valkey, started as child processes, for development and tests."""
