"""Events: values with Teleport's names, and each told once, by one package."""

from __future__ import annotations

import ast
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st

import teleconch
from teleconch.audit import events
from teleconch.audit.events import EVENTS, NAMES, Event, Peer, Scp, SessionEnd, UserLogin

ROOT = Path(teleconch.__file__).parent
KINDS = list(EVENTS.values())
LEVELS = ("debug", "info", "warn", "error", "critical", "failure", "emit")
# 4.2's codes, and for its events those of the later version that brought them (lib/events/codes.go).
TELEPORT = {
    "auth": ("T3007W",),
    "port": ("T3003I", "T3003E"),
    "scp": ("T3005I", "T3005E"),
    "session.end": ("T2004I",),
    "session.rejected": ("T1006W",),
    "session.start": ("T2000I", "T2000W"),
    "user.create": ("T1002I",),
    "user.delete": ("T1004I",),
    "user.login": ("T1000I", "T1000W"),
    "user.update": ("T1003I",),
    "x11-forward": ("T3008I", "T3008W"),
    "cert.create": ("TC000I",),
    "join_token.create": ("TJT00I",),
}


def _told(kind: type[Event]) -> list[tuple[str, str]]:
    """Codes and sentences of a type."""
    return [each for each in (kind.done, kind.refused) if each is not None]


TEXT = st.text(min_size=1)
VALUES: dict[str, Any] = {
    "str": TEXT,
    "int": st.integers(0, 2**62),
    "float": st.floats(0, 1e12),
    "int | None": st.integers(-64, 255),
    "tuple[str, ...]": st.lists(TEXT, min_size=1).map(tuple),
}


def made(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Any value of a type, with every attribute, or with none but the necessary ones."""
    needed: dict[str, Any] = {}
    optional: dict[str, Any] = {}
    for each in attrs.fields(kind):
        values = made(Peer) if each.name == "peer" else VALUES[str(each.type)]
        (needed if each.default is attrs.NOTHING else optional)[each.name] = values
    whole = st.fixed_dictionaries(needed, optional=optional)
    return whole.map(lambda given: kind(**given))


ANY = st.sampled_from(KINDS).flatmap(made)


@given(ANY)
def test_round_trip(event: Event) -> None:
    """What is written as JSON says the same when it is read again, whatever its texts are."""
    told = event.fields()
    again = json.loads(json.dumps(told))
    assert again == {name: list(value) if isinstance(value, tuple) else value for name, value in told.items()}


@given(ANY)
def test_sentences(event: Event) -> None:
    """Both sentences can be said of every event, so that no line of the log is lost for want of a field."""
    for told in _told(type(event)):
        assert told[1].format_map(event.values())


def test_codes() -> None:
    """Alerts that were written for Teleport's codes fire; codes of our own never look like one of Teleport's."""
    codes: dict[str, str] = {}
    for name, kind in EVENTS.items():
        for code, _ in _told(kind):
            assert codes.setdefault(code, name) == name, f"{code} means two things"
            assert code[-1] in "IWE"
        known = TELEPORT.get(name)
        if known is None:
            assert all(code.startswith("C") for code, _ in _told(kind)), name
        else:
            assert set(known) == {code for code, _ in _told(kind)}, name
    peer = Peer()
    for action, error, code in (
        ("download", "", "T3004I"),
        ("download", "no", "T3004E"),
        ("upload", "", "T3005I"),
        ("upload", "no", "T3005E"),
    ):
        assert Scp(peer=peer, sid="1", path="/x", action=action, size=0, error=error).code == code


def test_fields() -> None:
    """A login reads as Teleport writes it, and what is 0 is told, unlike what is not known."""
    login = UserLogin(user="joe", addr_remote="192.0.2.7")
    assert login.fields() == {
        "event": "user.login",
        "code": "T1000I",
        "success": True,
        "user": "joe",
        "addr.remote": "192.0.2.7",
        "method": "local",
    }
    assert attrs.evolve(login, error="no").fields()["code"] == "T1000W"
    peer = Peer(user="joe", login="root", server_id="u", addr_local="a:1", addr_remote="b:2")
    told = SessionEnd(peer=peer, sid="5", exit_code=0).fields()
    assert (told["exitCode"], told["addr.local"], told["login"]) == (0, "a:1", "root")
    assert "exitCode" not in SessionEnd(peer=peer, sid="5").fields()


def test_field_names_are_plain() -> None:
    """No attribute of an event takes the name of what its writer adds, or of another attribute."""
    for kind in KINDS:
        own = [NAMES.get(each.name, each.name) for each in (*attrs.fields(kind), *attrs.fields(Peer))]
        names = [name for name in own if name != "peer"]
        if "peer" in own:
            assert len(set(names)) == len(names), kind
        assert not {"time", "uid", "ei", "event", "code", "success"} & set(names), kind


def test_the_guide_names_each() -> None:
    """An administrator who meets an event in the log finds in the guide what it is, with the codes that it can have."""
    guide = (ROOT.parent / "docs/admin.rst").read_text()
    rows = re.findall(r"^``([a-z0-9_.-]+)``  +((?:[A-Z]+\d+[IWE](?:, )?)+) ", guide, re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted(EVENTS)
    for name, codes in rows:
        assert set(codes.split(", ")) == {code for code, _ in _told(EVENTS[name])}, name


# --- the tree --------------------------------------------------------------------------------------------------------


def _modules() -> list[tuple[str, ast.Module]]:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        package = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if package != "audit":
            found.append((package, ast.parse(path.read_text(), str(path))))
    return found


MODULES = _modules()


def test_each_event_has_one_teller() -> None:
    """No event that nobody emits, and none that two packages tell: what one decided, another does not tell again."""
    tellers: dict[str, set[str]] = defaultdict(set)
    kinds = {kind.__name__ for kind in KINDS}
    for package, module in MODULES:
        for node in ast.walk(module):
            if isinstance(node, ast.ImportFrom) and node.module == events.__name__:
                for name in node.names:
                    assert name.asname is None, f"{package} gives {name.name} another name"
                    tellers[name.name].add(package)
            elif isinstance(node, ast.ImportFrom) and node.module == "teleconch.audit":
                assert "events" not in {name.name for name in node.names}, f"{package} imports all events at once"
    assert {name: packages for name, packages in tellers.items() if name in kinds and len(packages) != 1} == {}
    assert kinds - set(tellers) == set()


def test_no_event_is_free_hand() -> None:
    """No line of the log calls itself an event: only values of the types above are events."""
    for package, module in MODULES:
        for node in ast.walk(module):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
                keywords = {each.arg for each in node.keywords}
                assert not {"event", "success"} & keywords, f"{package}, line {node.lineno}"


def test_every_type_is_known() -> None:
    """Two types of one name would hide each other."""
    assert len(EVENTS) == len(Event.__subclasses__())
    assert set(TELEPORT) <= set(EVENTS)
