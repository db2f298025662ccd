"""What is stored in PostgreSQL, the authoritative store: the ledger, the outbox, users, sessions, migrations."""
