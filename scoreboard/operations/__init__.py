"""The use cases, one a file, in the order of the specification's flow charts. Independent of HTTP and WebSocket."""
