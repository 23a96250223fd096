"""The second factor: TOTP (RFC 6238) with SHA-1, six digits and 30 seconds, as every authenticator app supports."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from teleconch.resources.secret import Secret

STEP: Final = 30  # seconds
DIGITS: Final = 6
WINDOW: Final = (-1, 0, 1)  # steps: a phone's clock may be a little off
_SECRET_BYTES: Final = 20


def new_otp_secret(randomness: Callable[[int], bytes]) -> Secret:
    """A new secret in base32, as apps expect it. ``randomness(n)`` returns n random bytes."""
    return Secret(base64.b32encode(randomness(_SECRET_BYTES)).decode())


def otp_url(secret: Secret, user: str, cluster: str) -> Secret:
    """The ``otpauth://`` URL that a QR code holds."""
    return Secret(_totp(secret).get_provisioning_uri(f"{user}@{cluster}", "teleconch"))


def step_of_code(secret: Secret, code: str, now: float, used: int) -> int | None:
    """The time step that the code belongs to, if it is within the window and later than ``used``; otherwise ``None``.

    RFC 6238 section 5.2: a code is accepted once, so the caller stores the step and passes it as ``used``.
    """
    given = "".join(code.split()).encode("ascii", "replace") if len(code) <= 32 else b""
    totp = _totp(secret)
    accepted = None
    for offset in WINDOW:
        step = int(now // STEP) + offset
        if step >= 0 and hmac.compare_digest(totp.generate(step * STEP), given) and step > used:
            accepted = step
    return accepted


def _totp(secret: Secret) -> TOTP:
    return TOTP(base64.b32decode(secret.reveal()), DIGITS, SHA1(), STEP)  # noqa: S303 - what apps and RFC 6238 use
