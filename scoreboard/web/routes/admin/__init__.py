"""The routes of /admin, for users with a role: one file a subject."""
