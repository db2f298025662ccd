"""Times of a refresh that server and clients must agree on. Pure.

A client sends a refresh token, the server accepts it, and the answer is lost. Then the client sends the same token once
more. Within the grace the server answers with the same next token. After it, a used token counts as stolen. So the
grace is computed from the clients' waits. The browser has its own figures in web/static (`ANSWER_TIMEOUT`,
`RENEW_RETRY_DELAY`); a test compares them with these.
"""

# how long a client waits for one answer; the server gives up after 3 s, the rest is for slow networks
CLIENT_ANSWER_SECONDS = 10
CLIENT_PAUSE_SECONDS = 60  # at most between two tries: a browser runs the timers of a hidden tab once a minute
# the second try may take as long as the first
REFRESH_GRACE_SECONDS = CLIENT_ANSWER_SECONDS + CLIENT_PAUSE_SECONDS + CLIENT_ANSWER_SECONDS

# What stands as the client of a session that a server key has opened (sessions.client): a description of a browser or a
# program never reads so.
SERVER_CLIENT = "Game server"
