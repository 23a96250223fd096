"""Numbers that several packages share. Durations are seconds, sizes are bytes."""

from __future__ import annotations

from typing import Final

NODE_PORT: Final = 3022
PROXY_PORT: Final = 3023
TUNNEL_PORT: Final = 3024
AUTH_PORT: Final = 3025
WEB_PORT: Final = 3080

MINUTE: Final = 60
HOUR: Final = 3600
DAY: Final = 86400

HOST_CERT_TTL: Final = 30 * DAY  # renewed at half of this
USER_CERT_TTL: Final = 12 * HOUR
USER_CERT_TTL_MIN: Final = MINUTE
USER_CERT_TTL_MAX: Final = 30 * HOUR  # what a login may ask for; `tctl auth sign` may go further
BACKDATE: Final = MINUTE  # certificates begin this long before they are issued, for clocks that are behind

SIGNUP_TOKEN_TTL: Final = HOUR
TOKEN_TTL_MAX: Final = 48 * HOUR
CLOCK_SKEW_MAX: Final = MINUTE

PING_INTERVAL: Final = 60
OFFLINE_AFTER_PINGS: Final = 2.5
PRESENCE_TTL: Final = 10 * MINUTE
FIRST_PING_WITHIN: Final = 6 * HOUR  # of the join; otherwise the node's membership ends
JOINS_AT_ONCE: Final = 256  # hosts with one token from one address ...
JOINS_PER_SECOND: Final = 1.0  # ... and then at this rate; hosts that have to wait retry by themselves

LOCKOUT_ATTEMPTS: Final = 5
LOCKOUT_WINDOW: Final = 30 * MINUTE
LOCKOUT_DURATION: Final = 20 * MINUTE
PASSWORD_MIN: Final = 8
PASSWORD_MAX: Final = 72  # bcrypt reads no more

BACKOFF_FIRST: Final = 0.5  # the first wait before a retry; it doubles, with full jitter
BACKOFF_MAX: Final = 30.0

MAX_CONNECTIONS: Final = 15000  # per listener
MAX_USERS: Final = 250  # connections of one user, per listener
KEEP_ALIVE_INTERVAL: Final = 30  # load balancers cut quiet connections after a minute
KEEP_ALIVE_COUNT_MAX: Final = 3

PAGE_SIZE: Final = 500  # items in one answer of a list call
API_SERVER_NAME: Final = "teleport.cluster.local"  # the DNS name in every auth server's TLS certificate
