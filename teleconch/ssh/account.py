"""How much memory a peer makes this process keep, in bytes: a budget for each connection, and one for each user.

Whatever waits here for a peer (a granted window, an unanswered request, an answer not yet taken) is charged to the
connection's account, which charges it to the user's, and is given back once it is gone. What does not fit is refused,
or ends the connection: see "Flow" and "Limits" in docs/ssh.rst.
"""

from __future__ import annotations

from typing import Final
from weakref import WeakValueDictionary

from teleconch.ssh import limits

_SPARE: Final = 4  # one part in this many of an account is kept for what cannot wait


class Account:
    """``held`` bytes of ``limit``; ``whole`` is the account of which this one is a part."""

    __slots__ = ("__weakref__", "held", "limit", "whole")

    def __init__(self, limit: int, whole: Account | None = None) -> None:
        self.held = 0
        self.limit = limit
        self.whole = whole

    def take(self, size: int, *, spare: bool = False) -> bool:
        """Whether ``size`` more bytes may be held. ``spare``: they only make something faster, so leave a quarter
        free."""
        limit = self.limit
        if spare:
            limit -= limit // _SPARE
        if self.held + size > limit or (self.whole is not None and not self.whole.take(size, spare=spare)):
            return False
        self.held += size
        return True

    def give(self, size: int) -> None:
        """Free ``size`` of the bytes that were taken."""
        self.held -= size
        if self.whole is not None:
            self.whole.give(size)

    def widen(self, limit: int, whole: Account | None) -> bool:
        """The peer has logged in: what is held counts against ``whole`` from now on. False if that has no room."""
        if whole is not None and not whole.take(self.held):
            return False
        self.limit, self.whole = limit, whole
        return True


_users: WeakValueDictionary[str, Account] = WeakValueDictionary()


def account_of(user: str) -> Account:
    """The account of all connections that ``user`` has to this process."""
    account = _users.get(user)
    if account is None:
        account = _users[user] = Account(limits.USER_BUDGET)
    return account
