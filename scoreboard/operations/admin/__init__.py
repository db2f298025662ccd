"""Use cases of whoever runs the server: users, imports, checks of the stores."""
