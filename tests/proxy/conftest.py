from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from tests.worlds.logs import add_observer, remove_observer
from tests.worlds.peers import Ports
from tests.worlds.proxy import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A proxy's world; the test starts it."""
    world = World(tmp_path)
    yield world
    pytest_twisted.blockon(Deferred.fromCoroutine(world.stop()))


@pytest.fixture
def ports() -> Iterator[Ports]:
    ports = Ports()
    yield ports
    pytest_twisted.blockon(Deferred.fromCoroutine(ports.close()))


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    """Refusals and successes as the audit log will have them."""
    events = []

    def observe(event: dict[str, Any]) -> None:
        if "audit" in event or event.get("log_namespace", "").startswith("teleconch.proxy"):
            events.append(event)

    add_observer(observe)
    yield events
    remove_observer(observe)
