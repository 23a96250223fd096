"""What may be a name. Checked when a certificate is issued and again when it is used (LESSONS: CVE-2026-35414)."""

from __future__ import annotations

import ipaddress
import re
import uuid

from teleconch.errors import BadParameter

_NAME = re.compile(r"[A-Za-z0-9._@-]{1,255}", re.ASCII)


def is_principal(name: object) -> bool:
    """Whether ``name`` may be a principal: one of ``[A-Za-z0-9._@-]``, 1 to 255 of them, no leading ``-``."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None and not name.startswith("-")


def is_host_principal(name: object) -> bool:
    """Whether ``name`` may stand in a host certificate: a principal, or an IP address literal."""
    if is_principal(name):
        return True
    if not isinstance(name, str) or "%" in name:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def check_name(name: object, what: str) -> str:
    """``name`` itself, or :class:`BadParameter` naming ``what`` and the letters that are allowed."""
    if not is_principal(name):
        raise BadParameter(
            f"{what} {name!r} is not usable: use 1 to 255 letters, digits and . _ @ - (not - first), nothing else."
        )
    assert isinstance(name, str)
    return name


def check_uuid(value: object) -> str:
    """``value`` itself if it is a UUID in its canonical lower-case form, else :class:`BadParameter`."""
    try:
        if isinstance(value, str) and str(uuid.UUID(value)) == value:
            return value
    except ValueError:
        pass
    raise BadParameter(f"Host UUID {value!r} is not a UUID like 52e3e46a-372f-494b-bdd9-a1d25b9d6dec.")
