"""The paths of the HTTP API and of the page. They stand here once, for the server and for the Python client. Pure.

A path is text, as in a URL. Code that compares requests with a path encodes it once, when its module is loaded.

Tested in tests/web/test_openapi.py.
"""

API_PREFIX = "/api/"  # every path below it is the API's

REGISTER_PATH = "/api/v1/auth/register"
LOGIN_PATH = "/api/v1/auth/login"
REFRESH_PATH = "/api/v1/auth/refresh"
LOGOUT_PATH = "/api/v1/auth/logout"

PROFILE_PATH = "/api/v1/users/me"
PASSWORD_PATH = "/api/v1/users/me/password"  # noqa: S105 - a path, not a password

ADMIN_PREFIX = "/api/v1/admin/"  # of those who have a role; <user> and <action> are parameters
ADMIN_USERS_PATH = "/api/v1/admin/users"
ADMIN_USER_PATH = "/api/v1/admin/users/<user>"
ADMIN_BAN_PATH = "/api/v1/admin/users/<user>/ban"
ADMIN_NOTES_PATH = "/api/v1/admin/users/<user>/notes"
ADMIN_ROLE_PATH = "/api/v1/admin/users/<user>/role"
ADMIN_REVERSE_PATH = "/api/v1/admin/users/<user>/actions/<action>/reverse"
ADMIN_LOG_PATH = "/api/v1/admin/log"

SUBMIT_PATH = "/api/v1/scores/action"
LEADERBOARD_PATH = "/api/v1/scores/leaderboard"
LIVE_PATH = "/api/v1/scores/live"  # the WebSocket
STREAM_PATH = "/api/v1/scores/stream"  # Server-Sent Events
POLL_PATH = "/api/v1/scores/poll"  # the long poll

OPENAPI_PATH = "/api/v1/openapi.json"

PAGE_PATH = "/"
STATIC_PREFIX = "/static/"  # files of the page
CLIENT_PATH = "/scoreboard.js"  # the JavaScript client, for pages of other sites
AVATAR_PREFIX = "/avatars/"  # pictures of users, by user id

LIVEZ_PATH = "/livez"
READYZ_PATH = "/readyz"
METRICS_PATH = "/metrics"
