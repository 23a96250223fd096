"""What pending starts hold, so that no user fills the daemon with processes that are yet to be.

A start has descriptors until the launcher has taken them, and memory and one descriptor until the process has started
or failed. The launcher may be slow, or somebody may hold it up; and a client that is gone still leaves its starts here.
So each start counts for its user, whatever has become of the connection.
"""

from __future__ import annotations

from typing import Final
from weakref import WeakKeyDictionary

from teleconch.errors import LimitExceeded
from teleconch.node import shares
from teleconch.ssh.account import Account

START_COST: Final = 32 * 1024  # about how many bytes of memory, beside what is asked for
OF_ALL: Final = 4  # descriptors of all starts: at most the limit divided by this
OF_USER: Final = 8  # and of one user's
NO_MEMORY: Final = "You have too much open on this node for its memory: close some of it first."
TOO_MANY: Final = "Too many of your sessions are being started on this node: try again in a while."
TOO_MANY_OF_ALL: Final = "Too many sessions are being started on this node: try again in a while."


class Start:
    """What one start holds; made by :meth:`Starts.begin`."""

    def __init__(self, owner: Account, size: int, files: Account, descriptors: int) -> None:
        self._owner = owner
        self._size = size
        self._files = files
        self._descriptors = descriptors

    def taken(self) -> None:
        """The launcher has the descriptors; one is left, on which it answers."""
        if self._descriptors:
            self._files.give(self._descriptors - 1)
            self._descriptors = 1

    def over(self) -> None:
        """The process has started, or never will."""
        self._files.give(self._descriptors)
        self._owner.give(self._size)
        self._descriptors = self._size = 0


class Starts:
    """The starts of one launcher."""

    def __init__(self) -> None:
        self._files = Account(0)  # descriptors, not bytes
        self._of_user: WeakKeyDictionary[Account, Account] = WeakKeyDictionary()

    def begin(self, owner: Account, size: int, descriptors: int) -> Start:
        """Take ``size`` bytes from a connection's account, and ``descriptors`` from its user's share.
        LimitExceeded."""
        user = owner.whole or owner
        files = self._of_user.get(user)
        if files is None:
            files = self._of_user[user] = Account(0, self._files)
        most = shares.limit()
        self._files.limit, files.limit = most // OF_ALL, most // OF_USER
        size += START_COST
        if not owner.take(size):
            raise LimitExceeded(NO_MEMORY)
        if not files.take(descriptors):
            owner.give(size)
            raise LimitExceeded(TOO_MANY if files.held + descriptors > files.limit else TOO_MANY_OF_ALL)
        return Start(owner, size, files, descriptors)
