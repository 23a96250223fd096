"""Passwords as bcrypt hashes, computed in threads. Callers hold a turn (``turns.py``) meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Final, Protocol

import bcrypt
from twisted.internet.defer import Deferred

from teleconch import defaults
from teleconch.errors import BadParameter
from teleconch.resources.secret import Secret

ROUNDS: Final = 12  # 2**12; about a quarter of a second
AT_ONCE: Final = 4  # bcrypt releases the interpreter lock, so threads help
NICE: Final = 10  # of those threads, so that a crowd of logins slows nothing else down


class InThread(Protocol):
    """``twisted.internet.threads.deferToThread``, or something like it."""

    def __call__(self, function: Callable[..., Any], /, *args: Any) -> Deferred[Any]: ...


class Passwords:
    """Hashes and checks."""

    def __init__(self, in_thread: InThread, rounds: int = ROUNDS) -> None:
        self._in_thread = in_thread
        self._rounds = rounds
        # The hash of a password that nobody knows: checking against it costs what checking a real one does.
        self._nobodys = Secret(bcrypt.hashpw(bcrypt.gensalt(4), bcrypt.gensalt(rounds)).decode())

    async def hash(self, password: Secret) -> Secret:
        """The hash to store. BadParameter for a password that is too short or too long."""
        encoded = _encoded(password)
        if encoded is None or not defaults.PASSWORD_MIN <= len(encoded) <= defaults.PASSWORD_MAX:
            raise BadParameter(
                f"A password has {defaults.PASSWORD_MIN} to {defaults.PASSWORD_MAX} bytes (letters beyond ASCII count"
                " as two or more); choose another."
            )
        return Secret((await self._in_thread(_aside, bcrypt.hashpw, encoded, bcrypt.gensalt(self._rounds))).decode())

    async def check(self, password: Secret, stored: Secret | None) -> bool:
        """Whether the password is the stored one; never for ``None``, which takes the same time."""
        encoded = _encoded(password)
        usable = encoded is not None and len(encoded) <= defaults.PASSWORD_MAX
        right = await self._in_thread(
            _aside, bcrypt.checkpw, encoded if usable else b"-", (stored or self._nobodys).reveal().encode()
        )
        return bool(right) and usable and stored is not None


def _aside(work: Callable[..., Any], *arguments: Any) -> Any:
    """Call ``work`` in a thread that gives way to the process's others (Linux keeps niceness per thread)."""
    if threading.current_thread() is not threading.main_thread():
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
    return work(*arguments)


def _encoded(password: Secret) -> bytes | None:
    try:
        encoded = password.reveal().encode()
    except UnicodeEncodeError:
        return None
    return None if b"\0" in encoded else encoded
