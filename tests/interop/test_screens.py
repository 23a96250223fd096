"""What a person sees on the screen: the same is typed in three windows, in ssh to sshd, in ssh through the proxy to the
node, and in tsh ssh."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

import pytest

from tests.interop.screens import Place, Screens, screens

pytestmark = [pytest.mark.program("ssh", "sshd", "tmux"), pytest.mark.root]

# Says when it runs, and, once it goes on, when it is in front: stopped, it is in neither.
JOB = """
trap 'until ps -o stat= -p $$ | grep -q +; do sleep 0.05; done; echo front_$((6*7))' CONT
echo begun_$((6*7))
while :; do sleep 0.05; done
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("screens"))
    yield made
    made.close()


@pytest.fixture
def shells(place: Place) -> Iterator[Screens]:
    """Shells on the hosts, with a coloured prompt and a file ``f`` of 500 lines."""
    with screens(place) as made:
        made.log_in()
        yield made


@pytest.fixture
def local(place: Place) -> Iterator[Screens]:
    """Shells here, in which ``go box`` leads to the hosts."""
    with screens(place, 100, 20) as made:
        yield made


def test_prompt_and_letters(shells: Screens) -> None:
    """A prompt of 256 colours and letters beyond ASCII, typed, deleted and cut at any byte, look as on sshd."""
    shells.type("-l", "echo ä€𝄞漢字")
    shells.type("BSpace", "BSpace", "x", "Enter")
    shells.shows("ä€𝄞x")
    assert "38;5;208" in shells.equal()
    shells.line(
        "clear; for i in 1 2 3 4 5 6; do printf 'ä€𝄞漢字%.0s' {1..90} | head -c $((180 * i + i)); sleep 0.1; done;"
        " echo; echo end_$((6*7))"
    )
    shells.shows("end_42")
    shells.equal()


def test_editor_and_pager(shells: Screens) -> None:
    """less and vim draw, follow a resize, and leave the screen as it was."""
    shells.line("less f")
    shells.shows("20\n")
    shells.type("G")
    shells.shows("500")
    shells.equal()
    shells.size(70, 20)
    shells.equal()
    shells.type("q")
    shells.prompts()
    shells.size(100, 30)
    # tmux tells the terminal a little later.
    shells.line("clear; until stty size | grep -x '30 100'; do sleep 0.05; done")
    shells.shows("30 100\n")
    if shutil.which("vim"):
        # What is typed before vim has asked the terminal what it is may be taken for the answer.
        shells.line(
            "clear; vim -n -u NONE --cmd 'set t_RV= t_u7= t_RF= t_RB= t_RC= t_RS= t_RK='"
            " --cmd 'autocmd VimEnter * echo \"begun_\" . 6*7' f"
        )
        shells.shows("10\n", "begun_42")
        shells.type("5Gohello ä€𝄞", "Escape")
        shells.shows("hello ä€𝄞")
        shells.size(90, 25)
        shells.equal()
        shells.line(":wq")
        shells.shows("ready")
    shells.line("clear; echo end_$((6*7))")
    shells.shows("end_42")
    shells.equal()


def test_screens_within_screens(shells: Screens) -> None:
    """top and tmux run, tmux takes the terminal's new size, and is found again."""
    shells.line("clear; top")
    shells.shows("%CPU")
    shells.type("q")
    shells.line("clear; tmux -u -L inner -f /dev/null new")
    shells.shows("[0]")
    shells.line("echo $((41+1))_")
    shells.shows("42_")
    shells.size(80, 24)
    shells.until(lambda screen: screen.split("\n")[23].startswith("[0]"), "is not resized")
    shells.line("clear; stty size")
    shells.shows("23 80")
    shells.type("C-b", "d")
    shells.shows("[detached")
    shells.line("clear; tmux -u -L inner attach")
    shells.shows("23 80")
    shells.line("exit")
    shells.shows("[exited]")
    shells.line("clear")
    shells.equal()


def test_interrupts_and_jobs(shells: Screens) -> None:
    """Ctrl-C ends a command, Ctrl-Z stops it, fg and bg go on, Ctrl-\\ quits; a resize reaches the program in front."""
    for road in shells.roads:
        (road.home / "job").write_text(JOB)
    shells.line("bash job")
    shells.shows("begun_42")
    shells.type("C-z")
    shells.shows("Stopped")
    shells.prompts()
    shells.line("bg; fg")
    shells.shows("front_42")
    shells.type("C-c")
    shells.prompts()
    shells.line("echo =$?")
    shells.shows("=130")
    shells.equal()
    shells.line("clear; bash -c 'trap \"stty size\" WINCH; echo begun_$((6*7)); while :; do sleep 0.05; done'")
    shells.shows("begun_42")
    shells.size(77, 22)
    shells.shows("22 77")
    shells.size(100, 30)
    shells.shows("30 100")
    shells.type("C-c")
    shells.prompts()
    shells.line("clear; echo on_$((6*7)); cat")
    shells.shows("on_42")
    shells.line("here")
    shells.until(lambda screen: screen.count("here") == 2, "does not show what cat answers")
    shells.type("C-\\")
    shells.shows("Quit")
    shells.prompts()
    shells.line("clear; echo end_$((6*7))")
    shells.shows("end_42")
    shells.equal()


def test_modes_of_the_terminal(shells: Screens) -> None:
    """Every mode, TERM and LANG are as on sshd; a password is not shown, pasted text is marked, reset resets."""
    shells.line("clear; stty -a; echo $TERM $LANG; script -qc 'stty size; tty' /dev/null")
    shells.shows("tmux-256color C.UTF-8", "iutf8", "30 100")
    assert "rows 30; columns 100" in shells.equal()
    shells.line("clear; read -sp Password: x; echo; echo ${#x}")
    shells.shows("Password:")
    shells.line("secret")
    shells.shows("\n6")
    assert "secret" not in shells.equal()
    shells.line("clear; head -c 3000 /bin/sh; stty -echo -icanon; reset")
    shells.until(lambda screen: screen.startswith(("ready> \n", "ready>\n")), "is not reset")
    shells.line("stty -a | grep -o ' echo '")
    shells.shows(" echo\n")
    for road in shells.roads:
        shells.tmux("set-buffer", "-b", road.name, "echo one\necho two\n")
        shells.tmux("paste-buffer", "-p", "-b", road.name, "-t", road.name)
    shells.shows("echo two")
    shells.until(lambda screen: not re.search(r"^one$", screen, re.MULTILINE), "runs what is pasted before Enter")
    shells.type("Enter")
    shells.shows("one\ntwo")
    shells.equal()


@pytest.mark.program("sudo")
def test_sudo(shells: Screens) -> None:
    """sudo asks at the terminal, does not show the answer, and is interrupted."""
    shells.line("clear; sudo -k; sudo -p 'Pass: ' true")
    shells.shows("Pass:")
    shells.line("wrong")
    shells.shows("Sorry, try again.")
    shells.type("C-c")
    shells.prompts()
    shells.line("echo end_$((6*7))")
    shells.shows("end_42")
    assert "wrong" not in shells.equal()


def test_escapes(local: Screens) -> None:
    """~. leaves a program that hangs, ~^Z stops the client, ~& lets it go on alone; the terminal is sane after each."""
    local.line("clear; stty -a | md5sum; go box; echo =$?; stty -a | md5sum")
    local.shows("ready")
    local.line("vim -u NONE f" if shutil.which("vim") else "less f")
    local.shows("10\n")
    local.type("Enter")
    local.type("-l", "~.")
    local.shows("Connection to box closed.", "=255")
    local.until(lambda screen: len(set(re.findall(r"[0-9a-f]{32}", screen))) == 1, "has other modes than before")
    local.log_in()
    local.type("Enter")
    local.type("-l", "~")
    local.type("C-z")
    local.shows("Stopped")
    local.line("stty -a | grep -o ' icanon'; fg")
    local.line("echo =$((6*7))")
    local.shows("=42", " icanon")
    local.line("clear; ~~x")
    local.shows("~x: command not found")
    local.line("clear; sleep 0.5; echo late_$((6*7)) >&2; stty size | wc -l")
    local.type("Enter")
    local.type("-l", "~&")
    local.shows("[backgrounded]", "local>")
    local.shows("late_42")
    local.line("clear; jobs; echo end_$((6*7))")
    local.shows("end_42\nlocal>")
    local.equal()


def test_client_as_a_job(local: Screens) -> None:
    """The client in the background does not touch the terminal; it is stopped, goes on and ends as a job."""
    local.line("clear; go box 'sleep 0.3; echo from_$((6*7))' & sleep 1; wait; echo end_$((6*7))")
    local.shows("from_42", "end_42")
    local.line("clear; go box & until jobs | grep -q Stop; do sleep 0.1; done; stty -a | grep -o ' icanon'; jobs; fg")
    local.shows("Stopped", " icanon", "ready")
    local.line("exit 4")
    local.shows("Connection to box closed.")
    local.line("clear; echo =$?; stty -a | grep -o ' icanon'; go box 'echo begun_$((6*7)); sleep 100'; echo =$?")
    local.shows(" icanon", "begun_42")
    local.type("C-z")
    local.shows("=148")
    local.line("clear; kill %1; fg; clear; go -f box 'sleep 0.2; echo from_$((6*7)); exit 3'; echo =$?; sleep 1")
    local.shows("=0", "from_42")
    local.line("clear")
    local.equal()


def test_commands_and_pipes(local: Screens) -> None:
    """Commands with and without a terminal, their streams and their exit statuses are as with ssh to sshd."""
    for line in (
        "go -t box 'tty; exit 3'; echo =$?; go box 'tty; echo err >&2; exit 4' 2>/dev/null",
        "echo in | go box cat; go box cat </dev/null; go box 'kill -9 $$' 2>/dev/null",
        "go box yes | head -1; go box -- -x",
        "go -tt box 'stty size' </dev/null >/dev/null; go -T box echo 'a  b' '$SHELL' \"'c  d'\"",
        "head -c 3000000 /bin/bash | go box md5sum; go box head -c 100000 /bin/bash | md5sum; go -t box stty size",
    ):
        local.line(f"clear; {line}; echo end_$?")
        local.until(lambda screen: re.search(r"^end_\d+$", screen, re.MULTILINE), "does not come to an end")
        local.equal()
    local.line("clear; go -t box 'read -sp Pw: x; echo; echo ${#x}'; echo end_$((6*7))")
    local.shows("Pw:")
    local.line("secret")
    local.shows("end_42")
    assert "secret" not in local.equal()
    local.line("clear; go -t box 'echo begun_$((6*7)); read x'; echo end=$?")
    local.shows("begun_42")
    local.type("C-c")
    local.shows("end=255")
    local.equal()
