"""Signals to users' process groups, with the users' own rights.

Sent as root, they could end what sudo runs in the same group. So a child that has become the user sends them. The user
can stop that child, too, so nobody waits for it. There is one at a time for each user, which sends all that has
gathered; one that does not end by itself is killed, and what it should have sent is sent again after a while.

Runs in the launcher, and so imports the standard library only.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Final, NamedTuple

from teleconch.node.launch import apart

LIMIT: Final = 2.0  # seconds that a sender may take (it needs a fraction of a millisecond), and before the next try
NOBODY: Final = 65534

Waiting = dict[tuple[str, int, int], None]  # session, process group and number, in the order in which they came


class _Sender(NamedTuple):
    uid: int
    sends: Waiting
    due: float


class Signals:
    """What waits to be sent, and who sends. A signal that waits already does not wait twice, as in the kernel."""

    def __init__(self) -> None:
        self._waiting: dict[int, Waiting] = {}  # by user
        self._senders: dict[int, _Sender] = {}  # by pid
        self._not_before: dict[int, float] = {}  # users whose sender was killed

    def __bool__(self) -> bool:
        """Whether anything must be looked at after a while."""
        return bool(self._waiting or self._senders)

    def add(self, id: str, group: int, number: int, uid: int) -> None:
        """To be sent by the next :meth:`send`."""
        self._waiting.setdefault(uid, {})[id, group, number] = None

    def forget(self, id: str) -> None:
        """The session's process was reaped: its group's number may be another's soon."""
        for sends in (*self._waiting.values(), *(sender.sends for sender in self._senders.values())):
            for key in [key for key in sends if key[0] == id]:
                del sends[key]

    def send(self) -> None:
        """Send what waits, except for users who have a sender already; kill senders that take too long."""
        now = time.monotonic()
        for pid, sender in self._senders.items():
            if sender.due <= now:
                os.kill(pid, signal.SIGKILL)
        busy = {sender.uid for sender in self._senders.values()}
        for uid, sends in list(self._waiting.items()):
            if uid in busy or self._not_before.get(uid, now) > now:
                continue
            del self._waiting[uid]
            self._not_before.pop(uid, None)
            if uid == 0 or os.geteuid() != 0:
                _send(sends)
            elif sends and not self._begin(uid, sends, now):
                self._waiting[uid] = sends

    def _begin(self, uid: int, sends: Waiting, now: float) -> bool:
        try:
            pid = os.fork()
        except OSError:  # some user's processes fill the machine; that must end neither this process nor the signal
            return False
        if pid == 0:
            try:
                os.setgroups([])
                os.setresgid(NOBODY, NOBODY, NOBODY)
                os.setresuid(uid, uid, uid)
                apart.forbid_tracing()
                _send(sends)
            finally:
                os._exit(0)
        self._senders[pid] = _Sender(uid, sends, now + LIMIT)
        return True

    def ended(self, pid: int, status: int) -> bool:
        """Whether ``pid``, which was reaped, was a sender."""
        sender = self._senders.pop(pid, None)
        if sender is None:
            return False
        if status:  # killed, by us or by its user
            self._waiting[sender.uid] = sender.sends | self._waiting.get(sender.uid, {})
            self._not_before[sender.uid] = time.monotonic() + LIMIT
        return True


def _send(sends: Waiting) -> None:
    for _, group, number in sends:
        kill_group(group, number)


def kill_group(group: int, number: int) -> None:
    """As killpg(2); nothing happens if the group is gone, or not this process's to signal."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        pass
