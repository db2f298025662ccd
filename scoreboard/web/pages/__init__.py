"""The page: its files, its first paint, how it presents itself, errors as pages."""
