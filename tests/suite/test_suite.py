"""What holds for every test."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

TREE = Path(__file__).parents[2]
TESTS = TREE / "tests"
SKIPPING = {
    "mark": "@pytest.mark.skip(reason='why')\ndef test_it(): ...",
    "condition": "@pytest.mark.skipif(True, reason='why')\ndef test_it(): ...",
    "in the test": "def test_it(): pytest.skip('why')",
    "in a fixture": "@pytest.fixture\ndef it(): pytest.skip('why')\ndef test_it(it): ...",
    "unittest": "import unittest\nclass TestIt(unittest.TestCase):\n  def test_it(self): self.skipTest('why')",
    "whole module": "pytest.skip('why', allow_module_level=True)",
    "package": "pytest.importorskip('nosuch', reason='why')",
    "not even tried": "@pytest.mark.xfail(run=False, reason='why')\ndef test_it(): ...",
    "no parameters": "@pytest.mark.parametrize('why', [])\ndef test_it(why): ...",
    "program": "@pytest.mark.program('why')\ndef test_it(): ...",
}


def test_ci_skips_nothing(tmp_path: Path) -> None:
    """With CI=true a test that did not run has failed, with the reason; elsewhere it is skipped."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    program: x\n")
    for name, source in SKIPPING.items():
        (tmp_path / f"test_{name.replace(' ', '_')}.py").write_text(f"import pytest\n{source}\n")

    def outcomes(ci: str) -> dict[str, int]:
        told = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "-ra",
             "--continue-on-collection-errors", str(tmp_path)],
            env={**os.environ, "CI": ci, "PYTHONPATH": str(TREE)},
            cwd=tmp_path, capture_output=True, text=True, check=False,
        ).stdout  # fmt: skip
        assert len(re.findall(r"^(?:FAILED|ERROR|SKIPPED|XFAIL) .*\bwhy\b", told, re.M)) == len(SKIPPING), told
        return {what: int(count) for count, what in re.findall(r"(\d+) ([a-z]+)", told.splitlines()[-1])}

    ends = outcomes("true")
    assert ends["failed"] + ends["errors"] == len(SKIPPING)
    assert "skipped" not in ends
    ends = outcomes("")
    assert ends["skipped"] + ends["xfailed"] == len(SKIPPING)


# Each comes in the same package as one that is listed.
BESIDE = {"scp", "sftp", "ssh-agent", "ssh-add", "ssh-keyscan", "sftp-server", "svnadmin", "pscp", "psftp", "puttygen",
          "groupadd"}  # fmt: skip


def test_programs_are_in_the_list() -> None:
    """A program that a test needs is one that `make test` installs."""
    listed = set(re.findall(r"([\w.-]+):[\w.-]+", (TESTS / "programs").read_text()))
    needed = {
        Path(name).name
        for file in TESTS.rglob("*.py")
        if file != Path(__file__)
        for names in re.findall(r"mark\.program\(([^)]*)\)", file.read_text())
        for name in re.findall(r'"([^"]+)"', names)
    }
    assert needed - BESIDE - listed == set()


INHERITED = """
import os, signal, subprocess
def test_it():
    status = open("/proc/self/status").read()
    assert "SigBlk:\\t0000000000000000" in status
    assert "Umask:\\t0022" in status
    assert callable(signal.getsignal(signal.SIGINT)), "Ctrl-C ends the tests"
    child = subprocess.run(["grep", "SigIgn", "/proc/self/status"], stdout=subprocess.PIPE, text=True).stdout
    assert int(child.split()[1], 16) & 0x7fffffff == 0
"""


def test_nothing_depends_on_the_starter(tmp_path: Path) -> None:
    """Under nohup, in a shell's background, with a strict umask: tests and their programs have a login's state."""
    (tmp_path / "test_inherited.py").write_text(INHERITED)

    def as_odd_starters_do() -> None:
        os.umask(0o077)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM, signal.SIGTERM})

    told = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(TREE)}, cwd=tmp_path, preexec_fn=as_odd_starters_do,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout
