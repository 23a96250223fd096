"""``tsh ssh -f``: the process that goes on in the background."""

from __future__ import annotations

import subprocess
import sys

THREADS = """
import os, sys
from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from teleconch.client.background import go_on_in_background

os.register_at_fork(before=lambda: print("forks with threads:", len(os.listdir("/proc/self/task"))))

async def work():
    await deferToThread(os.getpid)
    go_on_in_background(detach=True)
    print("a thread goes on:", await deferToThread(os.getpid) == os.getpid(), flush=True)
    reactor.stop()

from twisted.internet.defer import Deferred
reactor.callWhenRunning(lambda: Deferred.fromCoroutine(work()).addErrback(lambda f: (f.printTraceback(), os._exit(1))))
reactor.run()
"""


def test_forks_with_one_thread_only() -> None:
    """Nothing that a thread holds as the process goes into the background is held for ever in it, and it has threads
    anew. Python since 3.12 warns of such forks."""
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning", "-c", THREADS], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "forks with threads: 1\na thread goes on: True\n"
