"""What every test gets: a check that it left nothing behind, and the means to need a program or root."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import shutil
import signal
import subprocess
from collections.abc import Generator, Iterator
from typing import TypeVar

import pytest
import pytest_twisted
from twisted.internet import reactor, task
from twisted.internet._signals import _FDWaker as _Waker  # the reactor's own pipes, made on first need

from tests.worlds.logs import add_observer, remove_observer

PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))  # where sshd and useradd are
CLONE_NEWNS = 0x00020000  # linux/sched.h
Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)
SETTLE_TURNS = 1000  # of 10 ms: what a closing connection may need on a busy machine


def pytest_configure() -> None:
    """Let nothing depend on what started the tests."""
    _own_state()
    _hide_startup()


def _own_state() -> None:
    """Signals and umask as a login has them: nohup, a shell's ``&``, a CI's runner and a hardened root start others.

    What programs of the tests inherit besides, such as signals that the C library keeps for itself, is the starter's.
    """
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:  # which Python itself ignores
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)


def _hide_startup() -> None:
    """As root: sessions of the tests read no ``~/.bashrc`` of whoever runs them, which may be slow, or lock, or talk.

    In a mount namespace of this process, /dev/null stands in its place. Where that cannot be made, it is read.
    """
    startup = os.path.expanduser("~/.bashrc")
    if os.geteuid() != 0 or not os.path.isfile(startup) or ctypes.CDLL(None).unshare(CLONE_NEWNS) != 0:
        return
    for arguments in (["--make-rprivate", "/"], ["--bind", "/dev/null", startup]):
        if subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode:
            return


def pytest_collection_finish() -> None:
    """Let the collection after each test (:func:`nothing_left`) pass over all that importing the tests has made."""
    gc.collect()
    gc.freeze()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="run the long ones too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what cannot run here, with the reason. Leave out the long runs."""
    if not config.getoption("--soak"):
        long = [item for item in items if item.get_closest_marker("soak")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
    for item in items:
        missing = [
            name for mark in item.iter_markers("program") for name in mark.args if shutil.which(name, path=PATH) is None
        ]
        reason = f"needs {', '.join(missing)} (see README, 'Tests')" if missing else ""
        others = item.get_closest_marker("root") or "other_user" in getattr(item, "fixturenames", ())
        if others and os.geteuid() != 0:
            reason = "needs root: another OS user is logged in"
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _must_run((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _must_run((yield))


def _must_run(report: Report) -> Report:
    """With CI=true whatever is skipped, by whatever means, has failed, and its reason is the failure."""
    ran = "[NOTRUN]" not in getattr(report, "wasxfail", "[NOTRUN]")  # an expected failure, which pytest calls skipped
    if os.environ.get("CI") == "true" and report.skipped and not ran:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"CI runs every test. {reason}"
        vars(report).pop("wasxfail", None)
    return report


def _children() -> set[int]:
    found: set[int] = set()
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/self/task/{thread}/children") as file:
            found.update(map(int, file.read().split()))  # a thread may end while it is looked at
    return {pid for pid in found if not _is_daemon(pid)}


def _is_daemon(pid: int) -> bool:
    """Whether this is a process of a system test's cluster, which may outlive one test and be started again in it."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return b"TELECONCH_TEST_DAEMON=1" in file.read().split(b"\0")
    except OSError:
        return False


def _open() -> set[object]:
    found = {*reactor.getReaders(), *reactor.getWriters()}
    return {each for each in found if not isinstance(each, _Waker)}


def _left(before: set[object], children: set[int]) -> str:
    calls = [call for call in reactor.getDelayedCalls() if call.active()]
    sockets = _open() - before
    processes = _children() - children
    return "; ".join(
        f"{what}: {some}"
        for what, some in (("delayed calls", calls), ("open descriptors", sockets), ("child processes", processes))
        if some
    )


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Fail a test that left an unhandled Deferred error, a delayed call, a process or an open socket."""
    unhandled: list[str] = []

    def observe(event: dict[str, object]) -> None:
        if "log_failure" in event and event.get("log_namespace") == "twisted.internet.defer":
            unhandled.append(str(event["log_failure"]))

    before, children = _open(), _children()
    add_observer(observe)
    try:
        yield
        for _ in range(SETTLE_TURNS):
            if not _left(before, children):
                break
            pytest_twisted.blockon(task.deferLater(reactor, 0.01))
        left = _left(before, children)
        for call in reactor.getDelayedCalls():
            call.cancel()
        gc.collect()
    finally:
        remove_observer(observe)
    assert not left, f"the test left {left}"
    assert not unhandled, f"the test left unhandled errors: {unhandled}"
