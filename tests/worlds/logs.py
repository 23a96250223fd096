"""Observers of the log that are plain functions, which Twisted takes although mypy does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.logger import ILogObserver, globalLogPublisher


def add_observer(observe: Callable[[dict[str, Any]], object]) -> None:
    globalLogPublisher.addObserver(cast("ILogObserver", observe))


def remove_observer(observe: Callable[[dict[str, Any]], object]) -> None:
    globalLogPublisher.removeObserver(cast("ILogObserver", observe))
