"""Times of a session that both sides must know: the server gives a lost answer again for longer than any client waits
to ask again.

A client sends a refresh token, the server spends it, and the answer is lost. The client sends the same token once more.
Within the grace the server gives the same successor; later it must take the token for a stolen one. So the grace is
computed from the clients' waits. The browser's own figures stand in web/static (`ANSWER`, `AGAIN`); a test compares
them with these.
"""

# that a client waits for one answer; the server gives up after 3 s, the rest is for slow networks
CLIENT_ANSWER_SECONDS = 10
CLIENT_PAUSE_SECONDS = 60  # at most between two tries: a browser runs the timers of a hidden tab once a minute
# the second try may take its time, too
REFRESH_GRACE_SECONDS = CLIENT_ANSWER_SECONDS + CLIENT_PAUSE_SECONDS + CLIENT_ANSWER_SECONDS
