"""What HTTP clients speak to: routes, heads, errors. It decides nothing about scores; see operations."""
