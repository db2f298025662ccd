"""Gives the app's role its rights, where another role owns the tables (`postgres.migrate_url`).

The app's role reads and writes, and neither changes nor removes rows of the action log, the audit events, the
transparency log and its checkpoints. Users it removes by a function alone, which adds the erasure to the log. It makes
no tables; a function makes next month's partition. So whoever takes a node over can add to the log, and rewrite
nothing. Where one role is both, nothing of this applies, and `scoreboard verify` finds what was changed.

Called by storage.postgres.migrate, with the owner's connection. Coroutines run in asyncio.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import asyncpg

from scoreboard.domain.errors import StartError

PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
ALL_ROWS = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"})  # of a table that is not named below
BY_TABLE = {
    **dict.fromkeys(
        ("action_logs", "audit_events", "log_leaves", "log_nodes", "log_checkpoints", "log_secrets"),
        frozenset({"SELECT", "INSERT"}),
    ),
    **dict.fromkeys(("schema_migrations", "log_event_secret", "installation"), frozenset({"SELECT"})),
    "users": frozenset({"SELECT", "INSERT", "UPDATE"}),
}
FUNCTIONS = ("erase_user(uuid, text)", "make_log_partition(date)")

TABLES_SQL = f"""
SELECT relname AS name, relispartition AS is_partition,
       ARRAY(SELECT p FROM unnest('{{{",".join(PRIVILEGES)}}}'::text[]) AS p
             WHERE has_table_privilege($1, c.oid, p)) AS privileges
FROM pg_class AS c WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p') ORDER BY relname"""  # noqa: S608
SEQUENCES_SQL = """
SELECT relname AS name,
       has_sequence_privilege($1, oid, 'USAGE') AND has_sequence_privilege($1, oid, 'SELECT') AS is_given
FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'S' ORDER BY relname"""
# What makes rights of a role meaningless.
ROLE_SQL = """
SELECT rolsuper,
       pg_has_role(oid, (SELECT relowner FROM pg_class WHERE oid = 'action_logs'::regclass), 'MEMBER') AS is_owner
FROM pg_roles WHERE rolname = $1"""
SCHEMA_SQL = """
SELECT has_schema_privilege($1, current_schema(), 'USAGE') AS uses,
       has_schema_privilege($1, current_schema(), 'CREATE') AS makes,
       quote_ident(current_schema()) AS name, quote_ident($1) AS role"""


class TableRights(NamedTuple):
    """What a role may do with a table now."""

    name: str
    is_partition: bool
    privileges: frozenset[str]


def wanted_rights(table: TableRights) -> frozenset[str]:
    """What the app's role should be allowed. Partitions are reached by their parent, whose rights count."""
    return frozenset() if table.is_partition else BY_TABLE.get(table.name, ALL_ROWS)


def grants(tables: Iterable[TableRights], role: str) -> Iterator[str]:
    """The statements that are missing. `role`: as an identifier, quoted if needed. Names of tables are this schema's
    own."""
    for table in tables:
        wanted = wanted_rights(table)
        if excess := sorted(table.privileges - wanted):
            yield f'REVOKE {", ".join(excess)} ON "{table.name}" FROM {role}, PUBLIC'
        if absent := sorted(wanted - table.privileges):
            yield f'GRANT {", ".join(absent)} ON "{table.name}" TO {role}'


async def missing_aio(conn: asyncpg.Connection, role: str) -> list[str]:
    """The statements that give the role what it lacks, and take what it should not have. None: all is as it should be.

    Raises StartError when there is no such role, or when rights would mean nothing for it.
    """
    found = await conn.fetchrow(ROLE_SQL, role)
    if found is None:
        raise StartError(f"postgres.url: PostgreSQL has no role {role}: make it first (CREATE ROLE … LOGIN PASSWORD …)")
    if found["rolsuper"] or found["is_owner"]:
        why = "is a superuser" if found["rolsuper"] else "owns the tables, or is a member of the role that does"
        raise StartError(
            f"postgres.url: the role {role} {why}, so it could change the log; with postgres.migrate_url it must be a "
            "role of its own (if it made the tables: REASSIGN OWNED BY … TO …, as a superuser)"
        )
    schema = (await conn.fetch(SCHEMA_SQL, role))[0]
    name = schema["role"]
    tables = [
        TableRights(row["name"], row["is_partition"], frozenset(row["privileges"]))
        for row in await conn.fetch(TABLES_SQL, role)
    ]
    statements = list(grants(tables, name))
    if not schema["uses"]:
        statements.append(f"GRANT USAGE ON SCHEMA {schema['name']} TO {name}")
    if schema["makes"]:
        statements.append(f"REVOKE CREATE ON SCHEMA {schema['name']} FROM {name}, PUBLIC")
    statements += [
        f'GRANT USAGE, SELECT ON SEQUENCE "{row["name"]}" TO {name}'
        for row in await conn.fetch(SEQUENCES_SQL, role)
        if not row["is_given"]
    ]
    for function in FUNCTIONS:
        if not await conn.fetchval("SELECT has_function_privilege($1, $2, 'EXECUTE')", role, function):
            statements.append(f"GRANT EXECUTE ON FUNCTION {function} TO {name}")
    return statements
