"""The limit on attempts per source."""

from __future__ import annotations

from typing import Any, cast

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from teleconch.errors import AccessDenied, LimitExceeded
from teleconch.resources.login import LoginRequest, UserCertificates
from teleconch.resources.secret import Secret
from teleconch.web import attempts, front
from teleconch.web.attempts import AttemptLimits, TooOften
from teleconch.web.front import Front


def test_bucket() -> None:
    """Who tried too often waits, and then may try again; others are not held up."""
    clock = Clock()
    book = AttemptLimits(clock.seconds)
    for _ in range(attempts.ATTEMPTS):
        book.take("192.0.2.1", "joe")
    for _ in range(3):
        with pytest.raises(LimitExceeded):
            book.take("192.0.2.1", "joe")
    book.take("192.0.2.2", "joe")
    clock.advance(attempts.REFILL)
    book.take("192.0.2.1", "joe")
    with pytest.raises(LimitExceeded):
        book.take("192.0.2.1", "joe")


def test_an_office() -> None:
    """People who share an address do not hold each other up; one who tries all names from there is held up."""
    book = AttemptLimits(Clock().seconds)
    for number in range(attempts.SOURCE_ATTEMPTS):
        book.take("192.0.2.1", f"user{number}")
    with pytest.raises(LimitExceeded):
        book.take("192.0.2.1", "joe")
    book.take("192.0.2.2", "joe")


def test_a_flood_is_told_once_in_a_while() -> None:
    """A source that does not stop trying fills no disk with lines about it; it does not silence those on others."""
    clock = Clock()
    book = AttemptLimits(clock.seconds)
    lines = []
    for second in range(90):
        for source in ("192.0.2.1", "192.0.2.2"):
            for _ in range(attempts.ATTEMPTS + 1):
                try:
                    book.take(source, "joe")
                except TooOften as error:
                    lines += [(second, source)] if error.worth_a_line else []
        clock.advance(1)
    assert lines == [(second, f"192.0.2.{host}") for second in (0, attempts.TOLD_AGAIN) for host in (1, 2)]


def test_table_is_bounded() -> None:
    """A million sources and names cost a fixed amount of memory."""
    book = AttemptLimits(Clock().seconds)
    for number in range(attempts.REMEMBERED + 500):
        book.take(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", f"user{number}")
    assert len(book) == 2 * attempts.REMEMBERED


def test_who_leaves_frees_nothing_at_auth() -> None:
    """Clients that ask and go away do not make the proxy ask auth more at once than it takes."""
    asked: list[Deferred[UserCertificates]] = []

    class Auth:
        def login(self, request: LoginRequest) -> Deferred[UserCertificates]:
            asked.append(Deferred())
            return asked[-1]

    request = LoginRequest("joe", Secret("x"), "", "", "", None)
    web = Front(cast("Any", Auth()), Clock())
    for number in range(100):
        left = Deferred.fromCoroutine(web.login(f"192.0.2.{number}", request))
        left.addErrback(lambda failure: failure.trap(CancelledError))
        left.cancel()
    assert len(asked) == front.AT_ONCE
    for each in tuple(asked):
        each.errback(AccessDenied("wrong"))
    assert len(asked) == front.AT_ONCE  # those that left while they waited are not asked for at all
    assert len(web._turns) == 0
