from __future__ import annotations

from collections.abc import Iterator

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from tests.worlds.web import Web


@pytest.fixture
def web() -> Iterator[Web]:
    """A web server; the test starts it."""
    web = Web()
    yield web
    pytest_twisted.blockon(Deferred.fromCoroutine(web.stop()))
