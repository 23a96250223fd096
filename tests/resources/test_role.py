"""Roles as values: what may stand in one, and that they travel whole."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given

from teleconch.api.codec import decode_changes, decode_kept, encode_changes, encode_kept
from teleconch.errors import BadParameter
from teleconch.resources.kind import Change, Kind
from teleconch.resources.role import BUILT_IN, Conditions, Options, Requests, Role, Rule
from tests.worlds.roles import ROLE_SETS

ROLES = Kind("roles", Role)


@pytest.mark.parametrize("name", ["../x", "admin ", " admin", "adm\0in", "", "a/b", "-x", "rôle", "x" * 256])
def test_names(name: str) -> None:
    """No role has a name that is a path, or looks like another's."""
    with pytest.raises(BadParameter, match="Role"):
        Role(name)
    with pytest.raises(BadParameter, match="Role"):
        Requests((name,))


@pytest.mark.parametrize("login", ["*", "joe,root", "", "{{internal.logins}}{{internal.x}}", "{{logins}}", "a b"])
def test_logins(login: str) -> None:
    """A login is one login or one template."""
    with pytest.raises(BadParameter):
        Conditions((login,))


@pytest.mark.parametrize(
    "login", ["root", "{{internal.logins}}", "{{ external.x }}", '{{external["http://a/b"]}}', "adm-{{internal.x}}-1"]
)
def test_logins_that_are_right(login: str) -> None:
    """All forms of 4.2's documents are taken."""
    assert Conditions((login,)).logins == (login,)


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("env", "^(a$", "regular expression"),
        ("env", "^(?=a)b$", "regular expression"),
        ("env", "^prod", "a regular expression begins with"),
        ("env", "^((a{100}){100}){100}$", "regular expression"),
        ("env", "^" + "a" * 2000 + "$", "at most 1024"),
        ("env", "^{{external.team}}$", "taken as it is"),
        ("env", "{{external.team}}*", "taken as it is"),
        ("env", "{{external.team", "write {{internal.NAME}}"),
        ("env", "a\nb", "not printable"),
        ("*", "prod", "any node"),
        ("a b", "x", "label name"),
        ("", "x", "label name"),
        ("{{external.x}}", "x", "label name"),
    ],
)
def test_labels(name: str, value: str, part: str) -> None:
    """A pattern that cannot be matched, or would make one of a trait, is refused when it is written."""
    with pytest.raises(BadParameter, match=part):
        Conditions(node_labels={name: (value,)})


def test_the_rest() -> None:
    """Each part is checked."""
    for wrong in (
        lambda: Conditions(node_labels={"env": ()}),
        lambda: Rule((), ("list",)),
        lambda: Rule(("sesion",), ("list",)),
        lambda: Rule(("session",), ("see",)),
        lambda: Options(max_session_ttl=0),
        lambda: Options(max_session_ttl=float("inf")),
        lambda: Options(client_idle_timeout=-1),
        lambda: Options(max_sessions=0),
        lambda: Options(record="maybe"),  # type: ignore[arg-type]
        lambda: Options(session_mfa_window=5),
        lambda: Requests((), ("admin",)),
        lambda: Role("a", deny=Conditions(request=Requests(("admin",), ("dev",)))),
    ):
        with pytest.raises(BadParameter):
            wrong()


@given(ROLE_SETS)
def test_travels_whole(roles: tuple[Role, ...]) -> None:
    """A node sees a role as it is, by the wire and in the file that it keeps."""
    by_name = {role.name: role for role in (*roles, *BUILT_IN.values())}
    changes = tuple(Change(name, role) for name, role in by_name.items())
    assert decode_changes(ROLES, encode_changes(changes)) == changes
    assert decode_kept(ROLES, 1, encode_kept(ROLES, 1, by_name)) == by_name


def test_a_wrong_role_does_not_travel() -> None:
    """What arrives is checked like what is written."""
    data = encode_changes((Change("dev", Role("dev", allow=Conditions(("root",)))),))
    with pytest.raises(BadParameter, match="Login"):
        decode_changes(ROLES, data.replace(b'"root"', b'"a,b"'))


def test_re2_is_loaded_when_a_pattern_is() -> None:
    """Programs that handle no pattern do not pay for the library that matches them."""
    program = (
        "import sys, teleconch.access.decide, teleconch.resources.documents; assert 're2' not in sys.modules;"
        "from teleconch.resources.role import Conditions; Conditions(node_labels={'a': ('b*',)});"
        "assert 're2' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
