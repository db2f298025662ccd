"""What is written to and read from PostgreSQL, the only truth: the ledger, the outbox, users, sessions, migrations."""
