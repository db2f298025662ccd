"""What PostgreSQL and Redis hold, and how it is read and written. Beside `drivers` the only folder that imports
asyncio, asyncpg and redis.

PostgreSQL is authoritative. Redis holds projections of it, which may be lost at any time. Pub/Sub carries hints, never
data.
"""
