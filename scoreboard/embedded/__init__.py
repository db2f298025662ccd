"""A real PostgreSQL and a real Valkey, started as children: for development and tests."""
