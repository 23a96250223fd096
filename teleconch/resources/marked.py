"""Reads YAML (and so JSON) with the position of each value, so that all mistakes can be reported at once, each with its
line."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import yaml

from teleconch.errors import BadParameter, ConfigError, quoted
from teleconch.resources.times import from_rfc3339

TEXT_MAX = 4 * 2**20  # bytes of one file

_KINDS = {
    "tag:yaml.org,2002:int": "a number",
    "tag:yaml.org,2002:float": "a number",
    "tag:yaml.org,2002:bool": "yes or no",
    "tag:yaml.org,2002:null": "nothing",
    "tag:yaml.org,2002:timestamp": "a time",
}
_DIGITS = re.compile(r"0|[1-9][0-9]{0,8}", re.ASCII)
_STR = "tag:yaml.org,2002:str"
_BOOL = "tag:yaml.org,2002:bool"
_INT = "tag:yaml.org,2002:int"
_NULL = "tag:yaml.org,2002:null"
_NEVER = ("", "0001-01-01T00:00:00Z")


class _Loader(yaml.SafeLoader):
    """Composes nodes; ``*alias`` is refused, since a few lines of aliases can stand for gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not read here", event.start_mark)
        return super().compose_node(parent, index)


def suggestion(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'roles'?``, or an empty string."""
    close = get_close_matches(word, list(known), n=1)
    return f"; did you mean {quoted(close[0])}?" if close else ""


class MarkedReader:
    """Reads values from a composed YAML tree. Collects ``problems`` instead of raising, and ``notes`` about what is
    left out, each as file, line and sentence.

    A method that finds a mistake adds it to the problems and returns ``None`` (or leaves the item out).
    """

    def __init__(self, filename: str) -> None:
        self.filename = filename
        self.problems: list[tuple[str, int, str]] = []
        self.notes: list[tuple[str, int, str]] = []

    def compose(self, text: str) -> list[yaml.Node]:
        """The documents in ``text``. If it cannot be read as YAML, there are none and a problem is noted."""
        if len(text) > TEXT_MAX:
            self.problems.append((self.filename, 1, f"the file is longer than {TEXT_MAX // 2**20} MiB."))
            return []
        try:
            return [node for node in yaml.compose_all(text, _Loader) if node is not None]
        except yaml.MarkedYAMLError as e:
            mark = e.problem_mark or e.context_mark
            self.problems.append((self.filename, mark.line + 1 if mark else 1, f"not YAML: {e.problem or e.context}."))
        except yaml.YAMLError as e:
            self.problems.append((self.filename, 1, f"not YAML: {' '.join(str(e).split())}."))
        except RecursionError:
            self.problems.append((self.filename, 1, "not usable: lists and mappings are nested too deep."))
        return []

    def problem(self, node: yaml.Node, sentence: str) -> None:
        self.problems.append((self.filename, node.start_mark.line + 1, sentence))

    def note(self, node: yaml.Node, sentence: str) -> None:
        self.notes.append((self.filename, node.start_mark.line + 1, sentence))

    def finish(self) -> None:
        """Raise ConfigError if there were problems."""
        if self.problems:
            raise ConfigError(sorted(self.problems, key=lambda problem: problem[1]))

    def mapping(self, node: yaml.Node, where: str) -> dict[str, yaml.Node]:
        """Keys and their values. A key that is not a string, or that is there twice, is a problem."""
        found: dict[str, yaml.Node] = {}
        if not isinstance(node, yaml.MappingNode):
            self.problem(node, f"{where} must be a mapping (lines like 'name: value'), not {_kind(node)}.")
            return found
        for key_node, value in node.value:
            key = self.text(key_node, f"a key of {where}")
            if key in found:
                self.problem(key_node, f"{quoted(key)} is there twice in {where}.")
            elif key is not None:
                found[key] = value
        return found

    def fields(
        self,
        node: yaml.Node,
        where: str,
        known: Sequence[str],
        required: Sequence[str] = (),
        also: Collection[str] = (),
    ) -> dict[str, yaml.Node]:
        """A mapping with only the keys in ``known`` and ``also`` (which no message suggests); others are problems. All
        of ``required`` must be there."""
        found = self.mapping(node, where)
        if isinstance(node, yaml.MappingNode):
            keys = {key.value: key for key, _ in node.value if isinstance(key, yaml.ScalarNode)}
            meant: list[str] = []  # a mistyped key is not reported again as a missing one
            for key in found:
                if key not in known and key not in also:
                    meant += get_close_matches(key, known, n=1)
                    hint = suggestion(key, known) or f"; known here: {', '.join(known)}."
                    self.problem(keys[key], f"unknown key {quoted(key)} in {where}{hint}")
            missing = [key for key in required if key not in found and key not in meant]
            if missing:
                self.problem(node, f"{where} lacks {' and '.join(quoted(key) for key in missing)}.")
        return {key: value for key, value in found.items() if key in known or key in also}

    def text(self, node: yaml.Node | None, where: str) -> str | None:
        """A string. What YAML would take for something else (``yes``, ``12``) must be in quotes."""
        if node is None:
            return None
        if not isinstance(node, yaml.ScalarNode) or node.tag != _STR:
            hint = f': put it in quotes, "{node.value}"' if isinstance(node, yaml.ScalarNode) and node.value else ""
            self.problem(node, f"{where} must be text, not {_kind(node)}{hint}.")
            return None
        value: str = node.value
        try:  # JSON escapes a character above U+FFFF as two halves
            return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            self.problem(node, f"{where} holds half a character (a lone surrogate).")
            return None

    def texts(self, node: yaml.Node | None, where: str) -> tuple[str, ...] | None:
        """A list of strings. A single string stands for a list of one, and ``null`` for an empty list."""
        if node is None:
            return None
        if is_null(node):
            return ()
        if isinstance(node, yaml.ScalarNode):
            one = self.text(node, where)
            return None if one is None else (one,)
        if not isinstance(node, yaml.SequenceNode):
            self.problem(node, f"{where} must be a list, not {_kind(node)}.")
            return None
        items = [self.text(item, f"each of {where}") for item in node.value]
        return tuple(item for item in items if item is not None)

    def flag(self, node: yaml.Node | None, where: str) -> bool | None:
        """Yes or no."""
        if node is None:
            return None
        if not isinstance(node, yaml.ScalarNode) or node.tag != _BOOL:
            self.problem(node, f"{where} must be yes or no, not {_kind(node)}.")
            return None
        return yaml.SafeLoader.bool_values[node.value.lower()]

    def count(self, node: yaml.Node | None, where: str) -> int | None:
        """A whole number in decimal digits."""
        if node is None:
            return None
        if not isinstance(node, yaml.ScalarNode) or node.tag != _INT or _DIGITS.fullmatch(node.value) is None:
            self.problem(node, f"{where} must be a whole number like 10, not {_kind(node)}.")
            return None
        return int(node.value)

    def text_map(self, node: yaml.Node | None, where: str) -> dict[str, str] | None:
        """A mapping of strings to strings; ``null`` stands for an empty one."""
        if node is None:
            return None
        if is_null(node):
            return {}
        read = {key: self.text(value, f"{where}.{key}") for key, value in self.mapping(node, where).items()}
        return {key: value for key, value in read.items() if value is not None}

    def time(self, node: yaml.Node | None, where: str) -> float | None:
        """Epoch seconds of an RFC 3339 time, in quotes or not; ``None`` for ``null`` and for Go's zero time."""
        if node is None or is_null(node) or (isinstance(node, yaml.ScalarNode) and node.value in _NEVER):
            return None
        try:
            if isinstance(node, yaml.ScalarNode):
                return from_rfc3339(node.value)
            self.problem(node, f"{where} must be a time, not {_kind(node)}.")
        except BadParameter as e:
            self.problem(node, f"{where}: {e}")
        return None


def is_null(node: yaml.Node) -> bool:
    """Whether ``node`` is YAML's ``null``."""
    return isinstance(node, yaml.ScalarNode) and node.tag == _NULL


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    return _KINDS.get(node.tag, "text")
