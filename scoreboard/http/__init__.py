"""HTTP/1.1: parser, requests, responses, connections, the server that accepts them, the ASGI adapter."""
