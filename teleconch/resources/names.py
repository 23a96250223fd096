"""What may be a name. It is checked when a certificate is issued and again when it is used (CVE-2026-35414)."""

from __future__ import annotations

import ipaddress
import re
import uuid

from teleconch.errors import BadParameter, quoted

_LONGEST = 255
_NAME = re.compile(r"[A-Za-z0-9._@][A-Za-z0-9._@-]*", re.ASCII)
_USER = re.compile(r"[A-Za-z0-9._@][A-Za-z0-9._@+-]*", re.ASCII)
# Directories also have DOMAIN\name (Winbind), and a $ at the end of a machine's account (Samba).
_LOGIN = re.compile(r"(?:[A-Za-z0-9._][A-Za-z0-9._-]*\\)?[A-Za-z0-9._@][A-Za-z0-9._@+-]*\$?", re.ASCII)


def _matches(pattern: re.Pattern[str], name: object) -> bool:
    return isinstance(name, str) and len(name) <= _LONGEST and pattern.fullmatch(name) is not None


def is_login(name: object) -> bool:
    """Whether ``name`` may be an OS login, and so a principal of a user certificate: ``kim``, ``kim@corp.example.com``,
    ``CORP\\kim``, ``web1$``. It may have letters, digits and ``. _ @ + -``, at most 255 characters; never a comma, a
    blank, a quote, a colon, a slash, a wildcard, or a leading ``-`` or ``+``."""
    return _matches(_LOGIN, name)


def is_user_name(name: object) -> bool:
    """Whether ``name`` may be a user's: ``joe+ops@example.com``. The rules are those of a login, but without a domain
    and ``$``, since it becomes part of file names, X.509 names and addresses."""
    return _matches(_USER, name)


def is_name(name: object) -> bool:
    """Whether ``name`` may be a role's, a host's or a cluster's: letters, digits and ``. _ @ -``, 255 at most."""
    return _matches(_NAME, name)


def is_host_principal(name: object) -> bool:
    """Whether ``name`` may be in a host certificate: a name or an IP address literal."""
    if is_name(name):
        return True
    if not isinstance(name, str) or "%" in name:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def check_name(name: object, what: str) -> str:
    """Returns ``name``, or raises :class:`BadParameter`, which names ``what`` and the allowed characters."""
    return _checked(is_name(name), name, what, "use 1 to 255 letters, digits and . _ @ - (not - first), nothing else.")


def check_user_name(name: object) -> str:
    """Returns ``name``, or raises :class:`BadParameter`, which says what a user may be called."""
    return _checked(
        is_user_name(name),
        name,
        "User name",
        "use 1 to 255 letters, digits and . _ @ - + (not - or + first), nothing else.",
    )


def check_login(name: object) -> str:
    """Returns ``name``, or raises :class:`BadParameter`, which says what an OS login may be."""
    return _checked(
        is_login(name),
        name,
        "Login",
        "use 1 to 255 letters, digits and . _ @ - + (not - or + first), as DOMAIN\\name or with a $ at the end if need"
        " be, nothing else.",
    )


def _checked(right: bool, name: object, what: str, rule: str) -> str:
    if not right:
        raise BadParameter(f"{what} {quoted(name)} is not usable: {rule}")
    assert isinstance(name, str)
    return name


def check_uuid(value: object) -> str:
    """Returns ``value`` if it is a UUID in its canonical lower-case form, or raises :class:`BadParameter`."""
    try:
        if isinstance(value, str) and str(uuid.UUID(value)) == value:
            return value
    except ValueError:
        pass
    raise BadParameter(f"Host UUID {quoted(value)} is not a UUID like 52e3e46a-372f-494b-bdd9-a1d25b9d6dec.")
