"""Tables and documents as people and programs see them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from teleconch.cli.tables import Column, labels_text, write_document, write_pairs, write_table
from teleconch.text import shown

UUID = "d52527f9-b260-41d0-bb5a-e23b0cfe0f8f"


def test_plain_columns(capsys: pytest.CaptureFixture[str]) -> None:
    """Piped tables have Teleport's columns: titles, dashes, rows, no colour, no trailing blanks."""
    write_table(["Node Name", "Node ID", "Labels"], [["web-1", UUID, "os=linux"], ["database-1", UUID, ""]])
    assert capsys.readouterr().out.splitlines() == [
        "Node Name   Node ID                               Labels",
        "----------  ------------------------------------  --------",
        f"web-1       {UUID}  os=linux",
        f"database-1  {UUID}",
    ]


def test_nothing_to_list(capsys: pytest.CaptureFixture[str]) -> None:
    """An empty list tells what to do next, on stderr, so that a pipe stays empty."""
    write_table(["User"], [], empty="No users yet.")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "No users yet.\n")


def test_pairs_line_up(capsys: pytest.CaptureFixture[str]) -> None:
    """`tctl status` lines up, a value of two lines too."""
    write_pairs([("Cluster", "main"), ("CA pin", "sha256:aa\nsha256:bb")])
    assert capsys.readouterr().out == "Cluster  main\nCA pin   sha256:aa\n         sha256:bb\n"


@given(st.text())
def test_what_a_peer_named_cannot_steer_the_terminal(text: str) -> None:
    """No escape sequence, line break or direction override from a label or name reaches the terminal."""
    assert shown(text).isprintable()
    assert not text.isprintable() or shown(text) == text


def test_documents(capsys: pytest.CaptureFixture[str]) -> None:
    """--format=yaml and --format=json print what a program reads."""
    value = {"name": "web-1", "labels": {"os": "linux"}, "online": True}
    write_document(value, "json")
    assert json.loads(capsys.readouterr().out) == value
    write_document(value, "yaml")
    assert yaml.safe_load(capsys.readouterr().out) == value


def test_labels_in_the_form_that_tsh_ls_takes() -> None:
    """A label can be pasted from the list into `tsh ls`."""
    assert labels_text({"os": "linux", "env": "prod"}) == "env=prod,os=linux"


def on_terminal(code: str, columns: int) -> str:
    """What ``code`` writes to a terminal so wide."""
    leader, follower = pty.openpty()
    env = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"}
    child = subprocess.Popen([sys.executable, "-c", code], stdin=follower, stdout=follower, stderr=follower, env=env)
    os.close(follower)
    shown = b""
    while True:
        try:
            block = os.read(leader, 65536)
        except OSError:
            break
        if not block:
            break
        shown += block
    child.wait()
    os.close(leader)
    return shown.decode()


def test_narrow_terminal_keeps_names_whole() -> None:
    """On 55 columns labels are folded; on 40 they are left whole too, for the terminal to wrap. Nothing is cut."""
    code = (
        "from teleconch.cli.tables import *\n"
        f"write_table(['ID', Column('Labels', fold=True)], [['{UUID}', 'aaaaaaaaaa=1,bbbbbbbbbb=2']])\n"
    )
    folded, whole = on_terminal(code, 55).splitlines(), on_terminal(code, 40).splitlines()
    assert (len(folded), len(whole)) == (3, 2)
    assert f"{UUID}  aaaaaaaaaa=1,bbb" in folded[1]
    assert f"{UUID}  aaaaaaaaaa=1,bbbbbbbbbb=2" in whole[1]
    assert "…" not in str(folded + whole)


def test_style_by_cell() -> None:
    """Offline nodes stand out."""
    column = Column("Status", style=lambda cell: "green" if cell == "online" else "red")
    assert (column.style_of("online"), column.style_of("offline")) == ("green", "red")
