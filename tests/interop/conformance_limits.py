"""Rows for what a command inherits of the daemon, and for how many there may be."""

from __future__ import annotations

import subprocess
from typing import Any

from teleconch.ssh.problems import ChannelRefused
from tests.interop.conformance import Side, behaviour
from tests.interop.conformance_sessions import Session

LIMITS = "Means and limits"

_ATTRIBUTES = (
    "cat /proc/self/oom_score_adj; nice; ps -o cls=,rtprio= -p $$; grep -E 'Cpus_allowed:|Mems_allowed:|NoNewPrivs|"
    "Seccomp:|CapBnd|CapInh|CapAmb' /proc/self/status; cat /proc/self/cgroup /proc/self/coredump_filter "
    "/proc/self/timerslack_ns /proc/self/personality"
)


@behaviour(LIMITS, "Priority, CPUs, cgroup, place in the order of the OOM killer, capabilities of a command")
async def attributes(side: Side) -> str:
    own = subprocess.run(["sh", "-c", _ATTRIBUTES], capture_output=True, check=True).stdout
    result = await side.ssh(_ATTRIBUTES)
    return "the daemon's own" if result.out == own else result.out.decode()


@behaviour(
    LIMITS,
    "Sessions on one connection, one more than there may be (MaxSessions 100)",
    reason="A bound on a client that has gone wild, and not on users: those who share one connection (ControlMaster) "
    "often reach sshd's 10. The code says that means are short, where sshd's says that it could not connect.",
)
async def too_many(side: Side) -> str:
    connection = await side.connect()
    opened: list[Any] = []
    problem = "none"
    while len(opened) < 2000:
        session = Session()
        try:
            await connection.open(session)
        except ChannelRefused as error:
            problem = f"{error.code} {error.sentence}"
            break
        opened.append(session)
    again = Session()
    opened[0].loseConnection()
    await opened[0].over
    await connection.open(again)
    connection.close()
    await connection.disconnected
    many = len(opened) // 100 * 100  # where it is memory that counts, not each release makes the same of it
    return f"{many} at least, then refused: {problem}; one that is closed makes room"
