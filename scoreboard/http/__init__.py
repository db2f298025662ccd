"""HTTP/1.1: parser, requests and responses, a connection, the server that accepts them, the way to an ASGI
application."""
