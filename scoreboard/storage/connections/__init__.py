"""Connections to PostgreSQL and Redis: pools, deadlines, which failures mean what, the crossing from Trio to
asyncio."""
