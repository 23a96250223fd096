"""The labels of a node held against those of a role.

To allow, every label that the role names must be on the node with one of its values. To deny, one of them is enough:
what is denied must not depend on whether someone added a second label to the role.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from attrs import frozen

from teleconch.access.traits import Traits, expanded
from teleconch.resources.patterns import ANY, compile_pattern, is_pattern


@frozen
class Value:
    """One value that a role gives a label, as it is ``written``: any, some texts, or those that ``fits`` says."""

    written: str
    any: bool = False
    texts: frozenset[str] = frozenset()
    fits: Callable[[str], bool] | None = None

    def matches(self, value: str) -> bool:
        return self.any or value in self.texts or (self.fits is not None and self.fits(value))


class Values:
    """All that a role gives one label."""

    __slots__ = ("_any", "_fits", "_texts", "each")

    def __init__(self, written: tuple[str, ...], traits: Traits) -> None:
        self.each: Final = tuple(_value(text, traits) for text in written)
        self._any = any(value.any for value in self.each)
        self._texts = frozenset(text for value in self.each for text in value.texts)
        self._fits = tuple(value.fits for value in self.each if value.fits is not None)

    def match(self, value: str) -> bool:
        if self._any or value in self._texts:
            return True
        return any(fits(value) for fits in self._fits) if self._fits else False


class Labels:
    """The ``node_labels`` of one side of a role, compiled for the traits of one user."""

    __slots__ = ("_rows", "any_node", "by_name")

    def __init__(self, written: Mapping[str, tuple[str, ...]], traits: Traits) -> None:
        self.any_node: Final = ANY in written
        self.by_name: Final = {name: Values(values, traits) for name, values in written.items() if name != ANY}
        self._rows = tuple(self.by_name.items())

    def __bool__(self) -> bool:
        return self.any_node or bool(self._rows)

    def missing(self, labels: Mapping[str, str]) -> str | None:
        """The first label that keeps the role from allowing a node with ``labels``; ``None`` if none does. Without any
        label of its own, a role allows no node: that is ``""``."""
        for name, values in self._rows:
            value = labels.get(name)
            if value is None or not values.match(value):
                return name
        return None if self else ""

    def hit(self, labels: Mapping[str, str]) -> str | None:
        """The first label by which the role denies a node with ``labels``."""
        if self.any_node:
            return ANY
        for name, values in self._rows:
            value = labels.get(name)
            if value is not None and values.match(value):
                return name
        return None


def _value(text: str, traits: Traits) -> Value:
    texts = expanded(text, traits)
    if texts is not None:
        return Value(text, texts=frozenset(texts))
    if text == ANY:
        return Value(text, any=True)
    if is_pattern(text):
        return Value(text, fits=compile_pattern(text))
    return Value(text, texts=frozenset((text,)))
