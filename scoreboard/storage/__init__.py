"""PostgreSQL and Redis. The only folder that imports asyncio, trio_asyncio, asyncpg and redis.

PostgreSQL is the truth. Redis holds projections of it that may vanish at any time, and Pub/Sub carries hints, never
data.
"""
