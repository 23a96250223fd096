"""Ready means that everything runs and that the cluster takes this host."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.web.test.requesthelper import DummyRequest

from teleconch.service.ready import Readiness, diagnostics
from tests.worlds.logs import add_observer, remove_observer


@pytest.fixture
def lines() -> Iterator[Callable[..., Any]]:
    events: list[Any] = []
    add_observer(events.append)
    yield lambda: [each["log_format"] for each in events if each.get("log_namespace") == "teleconch.service.ready"]
    remove_observer(events.append)


def readyz(readiness: Readiness) -> int:
    request = DummyRequest([b"readyz"])
    diagnostics(readiness).resource.children[b"readyz"].render(request)
    return request.responseCode or 200


def test_refused_is_not_ready(lines: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A node whose pings the auth server refuses is not ready until they are taken; service managers go on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        readiness = Readiness(("node", "start"))
        readiness.refused("node", "It belongs to cluster B.")
        readiness.role_ready("node")
        assert readyz(readiness) == 503
        readiness.role_ready("start")
        assert readyz(readiness) == 503
        assert manager.recv(99) == b"READY=1"
    assert lines() == ["teleport runs, but the auth server refuses this host: {error}"]
    readiness.refused("node", "")
    assert readyz(readiness) == 200
    assert lines()[1:] == ["teleport is ready"]
    readiness.refused("node", "")
    readiness.refused("node", "The host was removed.")
    assert readyz(readiness) == 503
    readiness.refused("node", "")
    assert readyz(readiness) == 200
    assert lines()[2:] == [], "it is said once"


def test_ready() -> None:
    """While the auth server is away nobody refuses anything."""
    readiness = Readiness(("node",))
    assert readyz(readiness) == 503
    readiness.role_ready("node")
    assert readyz(readiness) == 200
    readiness.stopping()
    assert readyz(readiness) == 503
