"""Times of a session that the server and its clients share.

A client sends a refresh token, the server spends it, and the answer is lost. The client sends the same token once more.
Within the grace the server returns the same next token; later it must treat the token as stolen. So the grace is longer
than any client waits before and during its second try. The browser's own times are constants of web/static, and
tests/domain/test_sessions.py compares them with these.
"""

# how long a client waits for one answer; the server gives up after 3 s, the rest is for slow networks
CLIENT_ANSWER_SECONDS = 10
CLIENT_PAUSE_SECONDS = 60  # between two tries, at most: a browser runs the timers of a hidden tab once a minute
# the first answer, the pause, and the second answer
REFRESH_GRACE_SECONDS = CLIENT_ANSWER_SECONDS + CLIENT_PAUSE_SECONDS + CLIENT_ANSWER_SECONDS
