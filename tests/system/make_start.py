"""`make start` as a new user has it: each line that it prints is typed as it stands; it ends by Ctrl-C and goes on with
the same cluster. Python's standard library only. It leaves an account in var/, and ~/.tsh and ~/.ssh/config."""

from __future__ import annotations

import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from tests.worlds.cluster import PASSWORD, Daemon, totp

LINE = re.compile(r"^(?:    |Administer:  )(\S.*)$", re.MULTILINE)


class Terminal:
    """A shell in which lines are typed, with what the person answers to a program's questions."""

    def __init__(self) -> None:
        self.first = ""  # cd, and PATH
        self.secret = ""

    def type(self, line: str, *answers: str) -> str:
        print(f"$ {line}", flush=True)
        script = f"{self.first}\n{line}"
        with subprocess.Popen(
            ["bash", "-ec", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as shell:
            assert shell.stdin is not None
            assert shell.stdout is not None
            shell.stdin.write("".join(f"{answer}\n" for answer in answers))
            shell.stdin.flush()
            said = ""
            for part in shell.stdout:
                said += part
                if found := re.search(r"Secret for the authenticator: (\S+)", part):
                    self.secret = found[1]
                    shell.stdin.write(totp(self.secret) + "\n")
                    shell.stdin.flush()
        sys.stdout.write(said)
        if shell.returncode:
            sys.exit(f"{line} ended with {shell.returncode}")
        return said


def follow(terminal: Terminal, lines: list[str]) -> None:
    """Everything that is printed below "In another terminal"."""
    answers = 0
    for line in lines:
        if line.startswith("cd "):
            terminal.first = line
        elif line.startswith("https://"):
            shows_a_form(line)
        elif line.startswith("tsh signup "):
            terminal.type(line, PASSWORD, PASSWORD)
        elif line.startswith("tsh login "):
            terminal.type(line, PASSWORD, totp(terminal.secret, time.time() + 30))  # the current code is used up
        elif line.startswith("ssh ") and shutil.which("ssh") is None:
            print(f"no ssh on this machine: {line}", flush=True)
        elif line.startswith(("ssh ", "tsh ssh ")):
            answers += same_host(terminal.type(line))
        else:
            terminal.type(line)
    if not answers:
        sys.exit("nothing that was printed led to the node")


def shows_a_form(link: str) -> None:
    """The sign-up link, as a browser takes it whose user trusts this machine."""
    with urllib.request.urlopen(link, context=ssl._create_unverified_context()) as page:
        if "password" not in page.read().decode().lower():
            sys.exit(f"{link} shows no form for a password")


def same_host(said: str) -> int:
    if said.strip().splitlines()[-1] != os.uname().nodename:
        sys.exit(f"that is not this host's name: {said}")
    return 1


def started(log: Path) -> Daemon:
    daemon = Daemon(["make", "start"], log)
    daemon.wait_for("Administer:.*\n", seconds=600)  # it installs what it needs first
    print(daemon.output(), flush=True)
    return daemon


def interrupted(daemon: Daemon) -> None:
    """Ctrl-C, which the terminal sends to all that is in front."""
    os.killpg(daemon.process.pid, signal.SIGINT)
    daemon.process.wait(60)
    said = daemon.output()
    print(said[said.index("Administer:") :], flush=True)
    if "goes on with the same cluster" not in said or "Traceback" in said:
        sys.exit("Ctrl-C did not end it well")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        first = started(Path(folder, "first"))
        terminal = Terminal()
        try:
            lines = LINE.findall(first.output().partition("In another terminal:")[2])
            follow(terminal, lines)
            interrupted(first)
        finally:
            first.kill()
        again = started(Path(folder, "again"))
        try:
            if "signup" in again.output():
                sys.exit("the second start knows nobody")
            follow(terminal, [line for line in lines if line.startswith("tsh ssh ")])
            interrupted(again)
        finally:
            again.kill()


if __name__ == "__main__":
    main()
