"""Connections to PostgreSQL and Redis: pools, deadlines, the meaning of failures, and the crossing from Trio to
asyncio."""
