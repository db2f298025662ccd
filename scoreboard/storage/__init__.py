"""PostgreSQL and Redis. The only folder that imports asyncio, trio_asyncio, asyncpg and redis.

PostgreSQL is authoritative. Redis holds projections of it, which may be lost at any time. Pub/Sub carries hints, never
data.
"""
