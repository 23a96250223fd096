"""What people, accounts and hosts may be called."""

from __future__ import annotations

import re
import shlex
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleconch.errors import BadParameter
from teleconch.resources.names import (
    check_login,
    check_name,
    check_user_name,
    is_host_principal,
    is_login,
    is_name,
    is_user_name,
)

NEVER = [
    "",
    "-oProxyCommand=x",
    "+",
    "+kim",
    "$",
    "a,b",
    "a b",
    " a",
    "a\n",
    "a\0",
    "a\x7f",
    "a:b",
    "a/b",
    "../x",
    "*",
    "a?",
    "a'b",
    'a"b',
    "a`b`",
    "a;b",
    "a|b",
    "a&b",
    "$HOME",
    "a$b",
    "a$$",
    "(a)",
    "{a}",
    "<a>",
    "a%b",
    "a!b",
    "a=b",
    "a#b",
    "~a",
    "\\kim",
    "CORP\\",
    "CORP\\\\kim",
    "A\\B\\kim",
    "CORP\\-kim",
    "CORP\\+kim",
    "kïm",
    "kim\u2028",
    "\u212aim",  # KELVIN SIGN: lower() makes it an ASCII k
    "\ud800",
    "a" * 256,
    None,
    7,
    b"kim",
]


@pytest.mark.parametrize("name", NEVER)
def test_never(name: Any) -> None:
    """What splits, steers or expands anywhere is nobody's name (CVE-2026-35414: a comma in a principal)."""
    for fits in (is_login, is_user_name, is_name, is_host_principal):
        assert not fits(name)
    for check in (check_login, check_user_name, lambda given: check_name(given, "Name")):
        with pytest.raises(BadParameter, match="is not usable: use 1 to 255 letters"):
            check(name)


@pytest.mark.parametrize(
    ("name", "login", "user", "other"),
    [
        ("kim", True, True, True),
        ("kim.lee_2-x@example.com", True, True, True),
        ("joe+ops@example.com", True, True, False),
        ("CORP\\kim", True, False, False),
        ("corp.example.com\\kim.lee+x", True, False, False),
        ("CORP+kim", True, True, False),
        ("web1$", True, False, False),
        ("CORP\\web1$", True, False, False),
        ("kim@CORP.EXAMPLE.COM", True, True, True),
        ("a" * 255, True, True, True),
    ],
)
def test_what_directories_have(name: str, login: bool, user: bool, other: bool) -> None:
    """Accounts of Winbind, SSSD and Samba are logins; addresses with a tag are users; hosts and roles stay narrow."""
    assert (is_login(name), is_user_name(name), is_name(name)) == (login, user, other)
    assert is_host_principal(name) == other


@given(st.text(st.sampled_from(string.printable + "é\u2028\x00"), max_size=12))
def test_no_letters_but_these(name: str) -> None:
    """Whatever is taken has none but the letters that were thought through, and means nothing to a shell in quotes."""
    if is_login(name):
        assert re.fullmatch(r"[A-Za-z0-9._@+\\$-]+", name)
        assert name[0] not in "-+$\\"
        assert name.count("\\") <= 1
        assert "$" not in name[:-1]
        assert not name.endswith("\\")
        assert shlex.split(shlex.quote(name)) == [name]
    if is_user_name(name):
        assert is_login(name)
        assert re.fullmatch(r"[A-Za-z0-9._@+-]+", name)
        assert shlex.quote(name) == name  # needs no quotes in the commands that are printed
    if is_name(name):
        assert is_user_name(name)
