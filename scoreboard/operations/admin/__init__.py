"""Use cases of the operator: users, imports, checks of the stores."""
