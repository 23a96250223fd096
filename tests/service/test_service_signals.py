"""A daemon that is told to end ends, and its log is where it should be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from teleconch.service.log_file import LogFile

STUCK = """
import os, signal, sys, time
from twisted.internet import reactor
from teleconch.service import log, signals
signals.STOP_LIMIT, signals.LAST_WORD = 0.1, 0.1
class Roles:
    def be_patient(self): pass
    def hurry(self): pass
log.begin("stderr", "INFO")
told = signals.Signals(reactor, Roles(), lambda: None)
told.listen()
def begin():
    told.take_stops()
    os.kill(os.getpid(), signal.SIGTERM)
    reactor.callLater(0.01, time.sleep, 600)
reactor.callWhenRunning(begin)
reactor.addSystemEventTrigger("before", "shutdown", time.sleep, 600)
reactor.run()
"""


def test_stop_that_hangs() -> None:
    """Whatever a stop waits for, the process ends, with a status and a line that say that it was not in good order."""
    done = subprocess.run([sys.executable, "-c", STUCK], stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "teleport did not stop within 0.1 s" in done.stderr


def test_reopening_that_fails(tmp_path: Path) -> None:
    """Where the log's folder is gone, lines go on to the old file, and no descriptor is lost."""
    folder = tmp_path / "logs"
    folder.mkdir()
    file = LogFile(str(folder / "log"))
    file.write("one\n")
    folder.rename(tmp_path / "elsewhere")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        file.reopen()
    folder.mkdir()
    (folder / "log").mkdir()
    with pytest.raises(IsADirectoryError):
        file.reopen()
    assert len(os.listdir("/proc/self/fd")) == before
    file.write("two\n")
    assert (tmp_path / "elsewhere" / "log").read_text() == "one\ntwo\n"
    (folder / "log").rmdir()
    file.reopen()
    file.write("three\n")
    assert (folder / "log").read_text() == "three\n"
    file.close()
    assert len(os.listdir("/proc/self/fd")) == before - 1
