"""``tsh signup`` at a terminal."""

from __future__ import annotations

import sys

import pytest

from teleconch.cli import tsh_signup
from teleconch.errors import BadParameter
from teleconch.resources.login import Signup
from teleconch.resources.secret import Secret

STARTED = Signup(user="joe", cluster="main", otp_url=Secret("otpauth://totp/joe"), otp_secret=Secret("ABCD"))


class Web:
    """A proxy that takes one code."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def finish_signup(self, _token: Secret, password: Secret, otp: str) -> str:
        self.asked.append((password.reveal(), otp))
        if otp != "123456":
            raise BadParameter("The code is wrong.")
        return "joe"


class Terminal:
    """Standard input that is one, or is none."""

    def __init__(self, is_one: bool) -> None:
        self.isatty = lambda: is_one


def finish(monkeypatch: pytest.MonkeyPatch, terminal: bool, *typed: str) -> tuple[str, Web, list[str]]:
    """The user's name, what the proxy was asked, and the answers that were not needed."""
    left, web = list(typed), Web()
    monkeypatch.setattr(sys, "stdin", Terminal(terminal))
    monkeypatch.setattr(tsh_signup, "ask_secret", lambda _: Secret(left.pop(0)))
    monkeypatch.setattr(tsh_signup, "ask_text", lambda _: left.pop(0))
    return tsh_signup._finish(web, Secret("token"), STARTED), web, left  # type: ignore[arg-type]


def test_slips_cost_little(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Who mistypes the password twice and then the code is asked again each time, and for the code alone at last."""
    good = "long enough"
    user, web, left = finish(monkeypatch, True, "short", good, "other one", good, good, "000 000", "123 456")
    assert (user, left) == ("joe", [])
    assert web.asked == [(good, "000000"), (good, "123456")]
    assert capsys.readouterr().err.count("Once more:") == 3


def test_scripts_are_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where answers are piped in, a wrong one ends the program: the next line answers another question."""
    with pytest.raises(BadParameter, match="code is wrong"):
        finish(monkeypatch, False, "long enough", "long enough", "1", "123456")
