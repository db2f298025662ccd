"""The paths of the HTTP API and of the page. They stand here once, for the server and for the Python client. Pure.

A path is text, as in a URL. Code that compares requests with a path encodes it once, when its module is loaded.

Tested in tests/web/test_openapi.py.
"""

API_PREFIX = "/api/"  # every path below it is the API's

REGISTER_PATH = "/api/v1/auth/register"
LOGIN_PATH = "/api/v1/auth/login"
REFRESH_PATH = "/api/v1/auth/refresh"
LOGOUT_PATH = "/api/v1/auth/logout"
EXCHANGE_PATH = "/api/v1/auth/exchange"
OIDC_PREFIX = "/api/v1/auth/oidc/"  # log-in by an outside issuer, by its name
CALLBACK_SUFFIX = "/callback"
LOG_IN_FAILED_PATH = "/log-in-failed"  # a page

GUEST_PATH = "/api/v1/auth/guest"
LINK_PATH = "/api/v1/auth/link"

PROFILE_PATH = "/api/v1/users/me"
PASSWORD_PATH = "/api/v1/users/me/password"  # noqa: S105 - a path, not a password
SESSIONS_PATH = "/api/v1/users/me/sessions"
HISTORY_PATH = "/api/v1/users/me/actions"
EXPORT_PATH = "/api/v1/users/me/export"

ADMIN_PREFIX = "/api/v1/admin/"  # of those who have a role; <user> and <action> are parameters
ADMIN_USERS_PATH = "/api/v1/admin/users"
ADMIN_USER_PATH = "/api/v1/admin/users/<user>"
ADMIN_BAN_PATH = "/api/v1/admin/users/<user>/ban"
ADMIN_NOTES_PATH = "/api/v1/admin/users/<user>/notes"
ADMIN_ROLE_PATH = "/api/v1/admin/users/<user>/role"
ADMIN_REVERSE_PATH = "/api/v1/admin/users/<user>/actions/<action>/reverse"
ADMIN_FLAGS_PATH = "/api/v1/admin/flags"
ADMIN_FLAG_PATH = "/api/v1/admin/flags/<flag>"
ADMIN_HELD_PATH = "/api/v1/admin/held"
ADMIN_HELD_ACTION_PATH = "/api/v1/admin/held/<held>"
ADMIN_EVIDENCE_PATH = "/api/v1/admin/held/<held>/evidence"
ADMIN_LOG_PATH = "/api/v1/admin/log"

SUBMIT_PATH = "/api/v1/scores/action"
BULK_PATH = "/api/v1/scores/actions"
SERVER_USERS_PREFIX = "/api/v1/server/users/"  # and the external id
SERVER_SESSIONS_PATH = "/api/v1/server/sessions"
START_PATH = "/api/v1/actions/start"
EVIDENCE_PREFIX = "/api/v1/actions/evidence/"  # and the SHA-256 in hexadecimal digits
HELD_PATH = "/api/v1/users/me/held"
LEADERBOARD_PATH = "/api/v1/scores/leaderboard"
LIVE_PATH = "/api/v1/scores/live"  # the WebSocket
STREAM_PATH = "/api/v1/scores/stream"  # Server-Sent Events
POLL_PATH = "/api/v1/scores/poll"  # the long poll

AUDIT_CHECKPOINT_PATH = "/api/v1/audit/checkpoint"
AUDIT_KEY_PATH = "/api/v1/audit/key"
AUDIT_PROOF_PATH = "/api/v1/audit/proof"
AUDIT_CONSISTENCY_PATH = "/api/v1/audit/consistency"
AUDIT_LEAVES_PATH = "/api/v1/audit/leaves"

OPENAPI_PATH = "/api/v1/openapi.json"

PAGE_PATH = "/"
AUDIT_PAGE_PATH = "/audit"
STATIC_PREFIX = "/static/"  # files of the page
CLIENT_PATH = "/scoreboard.js"  # the JavaScript client, for pages of other sites
AVATAR_PREFIX = "/avatars/"  # pictures of users, by user id
JWKS_PATH = "/.well-known/jwks.json"

LIVEZ_PATH = "/livez"
READYZ_PATH = "/readyz"
METRICS_PATH = "/metrics"


def oidc_path(name: str) -> str:
    """Where a browser begins to log in by the outside issuer of that name."""
    return OIDC_PREFIX + name


def oidc_callback_path(name: str) -> str:
    """Where the issuer sends the browser back to: its path at the public address is the redirect URI."""
    return OIDC_PREFIX + name + CALLBACK_SUFFIX
