"""The HTTP API's routes, one file a resource."""
