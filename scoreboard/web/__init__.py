"""The HTTP API and the page: routes, heads of responses, errors, limits. It decides nothing about scores; see
operations."""
