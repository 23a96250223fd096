"""What can be watched: a kind of resource, and the changes of its values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Generic, TypeVar

from attrs import frozen

from teleconch.resources.node import NodeStatus

T = TypeVar("T")


@frozen
class Kind(Generic[T]):
    """``name`` is what the wire and files call it; ``values`` is the type of its values."""

    name: str
    values: type[T]


@frozen
class Change(Generic[T]):
    """The current value under a key; ``None`` if it is gone."""

    key: str
    value: T | None


NODES: Final = Kind("nodes", NodeStatus)
"""Nodes by their UUID."""

KINDS: Final[Mapping[str, Kind[Any]]] = {each.name: each for each in (NODES,)}
"""Every kind, by name. Who may watch it stands in ``auth/authorized.py``, where it comes from in ``auth/server.py``."""
