"""The boundary of the programs: every way that a command can end, as its user sees it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

PRELUDE = """
import click
from teleconch import errors
from teleconch.cli import boundary

@click.group(context_settings=boundary.SETTINGS)
@boundary.debug_option
def program(): "A program for this test."
boundary.add_help_command(program)

@program.command()
@boundary.debug_option
def verb():
    "Does what the test wants."
    {body}

boundary.run(program, "program")
"""


def source(body: str) -> str:
    return PRELUDE.replace("{body}", textwrap.indent(textwrap.dedent(body), "    ").strip())


def run(body: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", source(body), *(arguments or ("verb",))],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize(
    ("body", "status", "stderr"),
    [
        ("return None", 0, ""),
        ("return 7", 7, ""),
        ("click.get_current_context().exit(3)", 3, ""),
        ("raise errors.NotFound('There is no such node.')", 1, "ERROR: There is no such node.\n"),
        ("raise errors.TeleconchError('evil \\x1b[2J peer')", 1, "ERROR: evil ?[2J peer\n"),
        ("open('/nowhere/at/all')", 1, "ERROR: /nowhere/at/all: No such file or directory.\n"),
        (
            "raise errors.ConfigError([('f.yaml', 3, 'One.'), ('f.yaml', 9, 'Two.')])",
            1,
            "ERROR: the configuration has 2 errors:\nf.yaml:3: One.\nf.yaml:9: Two.\n",
        ),
        ("raise KeyboardInterrupt", 130, "\n"),
        ("{}['x']", 1, "ERROR: program failed unexpectedly (KeyError). "),
    ],
)
def test_endings(body: str, status: int, stderr: str) -> None:
    """A refused or failed command ends in one sentence and the promised exit status."""
    ended = run(body)
    assert ended.returncode == status
    assert ended.stderr.startswith(stderr) if stderr else ended.stderr == ""
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("arguments", [("-d", "verb"), ("verb", "--debug")])
def test_debug_shows_the_traceback(arguments: tuple[str, ...]) -> None:
    """With -d, before or after the verb, whoever has to find the fault sees where it happened."""
    ended = run("{}['x']", *arguments)
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr
    assert ended.stderr.rstrip().endswith("ERROR: program failed unexpectedly (KeyError).")


@pytest.mark.parametrize(
    ("arguments", "said"), [(("verbs",), "verbs"), (("verb", "--what"), "--what"), (("help", "x"), "x")]
)
def test_wrong_usage_is_status_2(arguments: tuple[str, ...], said: str) -> None:
    """A mistyped verb or flag shows the usage line and ends with status 2."""
    ended = run("return 0", *arguments)
    assert ended.returncode == 2
    assert ended.stderr.startswith("Usage: program")
    assert "ERROR: " in ended.stderr
    assert said in ended.stderr


def test_help_verb() -> None:
    """`help` and `help VERB` show what `--help` shows."""
    assert run("return 0", "help").stdout == run("return 0", "--help").stdout
    assert run("return 0", "help", "verb").stdout == run("return 0", "verb", "-h").stdout != ""


def test_reader_that_leaves_is_no_error() -> None:
    """`tctl get users | head -1` prints nothing odd when head leaves."""
    body = "import sys\nfor _ in range(100000): click.echo('x' * 100)\n"
    ended = subprocess.run(
        ["sh", "-c", '"$0" -c "$1" verb | head -1', sys.executable, source(body)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.stderr == ""
    assert ended.stdout == "x" * 100 + "\n"


def test_reader_that_left_before_the_last_flush() -> None:
    """A short output into a pipe that is closed already is quiet as well."""
    ended = subprocess.run(
        [
            "sh",
            "-c",
            '"$0" -c "$1" verb | true',
            sys.executable,
            source("import time; time.sleep(0.2); click.echo('x')"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.stderr == ""


def test_reactor_gives_result_and_error() -> None:
    """What the async part of a command returns or raises reaches its user like anything else."""
    later = "from twisted.internet.task import deferLater\n    await deferLater(reactor, 0)"
    work = f"async def work(reactor):\n    {later}\n    {{}}\n"
    assert run(work.format("return 5") + "return boundary.run_reactor(work)").returncode == 5
    failed = run(work.format("raise errors.AccessDenied('No.')") + "return boundary.run_reactor(work)")
    assert (failed.returncode, failed.stderr) == (1, "ERROR: No.\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_reactor_interrupted(number: signal.Signals) -> None:
    """Ctrl-C during a wait ends the program at once, with status 130, and its clean-up runs."""
    body = """
        async def wait(reactor):
            from twisted.internet.defer import Deferred
            print("waiting", flush=True)
            try:
                await Deferred()
            finally:
                print("cleaned", flush=True)
        return boundary.run_reactor(wait)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", source(body), "verb"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout, stderr) == (130, "cleaned\n", "\n")


def test_colour_only_on_a_terminal() -> None:
    """Red on a terminal; plain in a pipe, in a file, and with NO_COLOR."""
    command = f"{sys.executable} -c '{source('raise errors.NotFound(str(1))').replace(chr(39), chr(34))}' verb"
    on_terminal = ["script", "-qec", command, "/dev/null"]
    coloured = subprocess.run(
        on_terminal, capture_output=True, text=True, env={**os.environ, "TERM": "xterm"}, timeout=60
    )
    assert "\x1b[31m" in coloured.stdout
    plain = subprocess.run(on_terminal, capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"}, timeout=60)
    assert "\x1b" not in plain.stdout
    assert "ERROR: 1" in plain.stdout
