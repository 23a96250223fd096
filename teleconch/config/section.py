"""Reads one section of teleport.yaml, key by key. Errors are noted; none ends the reading.

A key is known once it has been asked for. ``unknown.report_unknown``, called last, reports the others.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

import yaml

from teleconch.config.addresses import Address, parse_address, parse_server
from teleconch.config.document import NULL, Findings, is_empty, line_of
from teleconch.errors import BadParameter, quoted
from teleconch.resources.durations import parse_duration

T = TypeVar("T")

_STR = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"
_BOOL = "tag:yaml.org,2002:bool"
_PLAIN = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "timestamp")}  # read just as written
TRUE = {"yes", "true", "on", "y", "t", "1"}
FALSE = {"no", "false", "off", "n", "f", "0"}


class Section:
    """One mapping of the file. ``path`` is its dotted name (``auth_service.authentication``), or "" for the whole
    file."""

    def __init__(self, findings: Findings, node: yaml.Node | None, path: str) -> None:
        self.findings = findings
        self.path = path
        self.known: list[str] = []
        self.children: list[Section] = []
        self.entries: dict[str, tuple[int, yaml.Node]] = {}
        if isinstance(node, yaml.MappingNode):
            self._index(node)
        elif node is not None and node.tag != NULL:
            findings.error(line_of(node), f"{path} must hold keys, such as 'key: value', one below the other.")

    def _index(self, node: yaml.MappingNode) -> None:
        merged: list[yaml.Node] = []
        for key_node, value in node.value:
            line = line_of(key_node)
            if key_node.tag == _MERGE:
                merged.append(value)
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self.findings.refuse(line, f"A key{self._inside()} must be a plain name.")
                continue
            key = key_node.value
            if key in self.entries:
                first = self.entries[key][0]
                self.findings.refuse(line, f"{self._full(key)} is given a second time; it is in line {first} already.")
                continue
            self.entries[key] = (line, value)
            self.findings.lines[self._full(key)] = line
        self._merge(merged)

    def _merge(self, merged: list[yaml.Node]) -> None:
        """Add the keys of ``<<: *ANCHOR``. Keys that are already there stay; the first one wins."""
        seen = set()
        waiting = merged[::-1]
        while waiting:
            node = waiting.pop()
            if id(node) in seen:  # an anchor can contain itself
                continue
            seen.add(id(node))
            if isinstance(node, yaml.SequenceNode):
                waiting += node.value[::-1]
            elif isinstance(node, yaml.MappingNode):
                waiting += [value for key, value in node.value if key.tag == _MERGE]
                for key, value in node.value:
                    if key.tag != _MERGE and isinstance(key, yaml.ScalarNode) and key.value not in self.entries:
                        self.entries[key.value] = (line_of(key), value)
                        self.findings.lines[self._full(key.value)] = line_of(key)
            else:
                sentence = f"'<<'{self._inside()} must name a section with keys, such as *base."
                self.findings.refuse(line_of(node), sentence)

    def idle(self, why: str) -> None:
        """From here on, errors in the values are only warnings, since they have no effect: ``why``."""
        self.findings = self.findings.while_idle(why)

    # -- keys

    def section(self, key: str) -> Section:
        """The section below ``key``; an empty one if the file has none."""
        child = Section(self.findings, self._node(key), self._full(key))
        self.children.append(child)
        return child

    def sections(self, key: str) -> list[Section]:
        """The sections in the list below ``key``."""
        node = self._node(key)
        if node is None:
            return []
        if not isinstance(node, yaml.SequenceNode):
            self._wrong(node, key, "a list: each entry on its own line, after '- '")
            return []
        made = [
            Section(self.findings, item, f"{self._full(key)}[{n}]")
            for n, item in enumerate(node.value, 1)
            if not is_empty(item)
        ]
        self.children.extend(made)
        return made

    def has(self, key: str) -> bool:
        """Whether the file gives ``key`` a value. ``key:`` alone, ``~``, ``""``, ``[]`` and ``[""]`` give none."""
        return self._node(key) is not None

    def blank(self, key: str) -> bool:
        """Whether ``key`` has an empty string or list, as a template leaves it when a variable is not set."""
        _, node = self.entries.get(key, (0, None))
        return node is not None and node.tag != NULL and is_empty(node)

    def later(self, *keys: str) -> None:
        """Warn about each of these keys that is there: they are Teleport's, and do nothing here yet."""
        for key in keys:
            if self.has(key):
                self.findings.warn(self.entries[key][0], f"{self._full(key)} has no effect in this version yet.")

    # -- values

    def text(self, key: str, default: T, *, secret: bool = False) -> str | T:
        """A non-empty line of text. A ``secret`` value is not shown in messages."""
        node = self._node(key)
        if node is None:
            return default
        text = self._text(node, self._full(key), secret=secret)
        return default if text is None else text

    def boolean(self, key: str, default: bool) -> bool:
        """Yes or no. An empty string means ``default``, with a warning, since only its author knows what was meant."""
        node = self._node(key)
        if node is None:
            if self.blank(key):
                meant = f"{self._full(key)} is empty, which is as if it were left out: {'yes' if default else 'no'}."
                self.findings.warn(self._line(key), meant)
            return default
        word = node.value.lower() if isinstance(node, yaml.ScalarNode) else ""
        if word not in TRUE | FALSE:
            self._wrong(node, key, "yes or no")
        return word in TRUE if word in TRUE | FALSE else default

    def integer(self, key: str, default: int, *, least: int = 1, most: int = 10**9) -> int:
        node = self._node(key)
        if node is None:
            return default
        text = node.value if isinstance(node, yaml.ScalarNode) else ""
        if text == "0" and least > 0:
            self.findings.warn(self._line(key), f"{self._full(key)}: 0 is read as the default, {default}.")
            return default
        if not re.fullmatch(r"-?[0-9]{1,15}", text, re.ASCII) or not least <= int(text) <= most:
            self._wrong(node, key, f"a whole number from {least} to {most}")
            return default
        return int(text)

    def duration(self, key: str, default: float | None, *, never: bool = False, positive: bool = True) -> float | None:
        """Seconds; ``None`` for ``never`` (and ``no``, ``0``), where that is allowed."""
        text = self.one_text(key)
        if text is None:
            return default
        if never and text.lower() in ("never", "no", "0"):
            return None
        try:
            seconds = parse_duration(text)
        except BadParameter as e:
            self._say(key, f"{e}{' Or write: never.' if never else ''}")
            return default
        if positive and seconds == 0:
            self._say(key, "it must be longer than zero.")
            return default
        return seconds

    def one_text(self, key: str) -> str | None:
        """The text of a scalar just as written, including ``off`` and ``0``; ``None`` if there is none."""
        node = self._node(key)
        if node is None:
            return None
        if not isinstance(node, yaml.ScalarNode) or not node.value.isprintable():
            self._wrong(node, key, "one word or number")
            return None
        return str(node.value)

    def one_of(
        self,
        key: str,
        allowed: Sequence[str],
        default: str,
        *,
        not_yet: Sequence[str] = (),
        same: Mapping[str, str] = MappingProxyType({}),
    ) -> str:
        """One of the ``allowed`` words, whatever YAML takes it for (``off`` is a boolean to YAML). ``not_yet`` are
        Teleport's words that do not work here yet; ``same`` maps synonyms to allowed words."""
        text = self.one_text(key)
        if text is None:
            return default
        text = same.get(text.lower(), text)
        if text.lower() in not_yet:
            self._say(key, f"{quoted(text)} is not available in this version. Possible: {', '.join(allowed)}.")
            return default
        if text.lower() not in allowed:
            self._say(key, f"{quoted(text)} is not known. {_choice(text, allowed)}")
            return default
        return text.lower()

    def some_of(self, key: str, allowed: Sequence[str], others: Iterable[str] = ()) -> tuple[str, ...] | None:
        """A list of names from ``allowed``, in the file's order; ``None`` if there is none. Names from ``others`` are
        left out with a warning, as long as one of ``allowed`` remains."""
        if not self.has(key):
            return None
        names: list[str] = []
        left_out = []
        for line, name in self.texts(key):
            if name in names:
                self.findings.warn(line, f"{self._full(key)}: {quoted(name)} is listed twice.")
            elif name in allowed:
                names.append(name)
            elif name in others:
                left_out.append((line, name))
            else:
                self.findings.error(line, f"{self._full(key)}: {quoted(name)} is not known. {_choice(name, allowed)}")
        if left_out and not names:
            self._say(key, f"none of these is offered. Possible: {', '.join(allowed)}.")
        for line, name in left_out:
            self.findings.warn(
                line, f"{self._full(key)}: {quoted(name)} is not offered (too weak, or too rare): left out."
            )
        return tuple(names)

    def texts(self, key: str, *, single: bool = False, secret: bool = False) -> list[tuple[int, str]]:
        """The line and text of each non-empty item of a list. With ``single``, a lone string counts as a list of
        one."""
        node = self._node(key)
        if node is None:
            return []
        if single and isinstance(node, yaml.ScalarNode):
            items = [node]
        elif isinstance(node, yaml.SequenceNode):
            items = [item for item in node.value if not is_empty(item)]
        else:
            self._wrong(
                node, key, "a text, or a list of texts" if single else "a list: each on its own line, after '- '"
            )
            return []
        found = ((line_of(item), self._text(item, f"An item of {self._full(key)}", secret=secret)) for item in items)
        return [(line, text) for line, text in found if text is not None]

    def argv(self, key: str) -> tuple[str, ...] | None:
        """A program and its arguments, each just as written, even if empty or with line breaks or tabs. Empty if there
        is none; ``None`` if it is wrong, which is noted."""
        self._know(key)
        _, node = self.entries.get(key, (0, None))
        if node is None or node.tag == NULL:
            return ()
        if not isinstance(node, yaml.SequenceNode):
            self._wrong(node, key, "a list of a program and its arguments, such as [uname, -r]")
            return None
        words = []
        for item in node.value:
            if not isinstance(item, yaml.ScalarNode) or item.tag not in _PLAIN | {_BOOL, NULL}:
                self.findings.error(line_of(item), f"An item of {self._full(key)} must be one text.")
                return None
            words.append("" if item.tag == NULL else str(item.value))
            if "\0" in words[-1]:
                self.findings.error(line_of(item), f"An item of {self._full(key)} holds a NUL character. Remove it.")
                return None
        return tuple(words)

    def address(self, key: str, default: Address) -> Address:
        """Where to listen: ``host:port``, ``host``, ``:port`` or ``port``. Port 0 means any free one."""
        text = self.text(key, None)
        if text is None:
            return default
        given = self.checked(
            self._line(key), key, lambda: parse_address(text, default.port, default_host=default.host, port_0=True)
        )
        return default if given is None else given

    def addresses(self, key: str, default_port: int) -> tuple[Address, ...]:
        """One ``host[:port]`` or a list of them, by which others find this host. An address that stands for every
        address of a machine tells them nothing; it is left out with a warning."""
        found = []
        for line, text in self.texts(key, single=True):
            address = self.checked(line, key, lambda text=text: parse_address(text, default_port))  # type: ignore[misc]
            if address is not None and address.any_host:
                self.findings.warn(
                    line, f"{self._full(key)}: {quoted(text)} stands for every address of a machine, and is left out."
                )
            elif address is not None:
                found.append(address)
        return tuple(found)

    def servers(self, key: str, default_port: int) -> tuple[Address, ...]:
        """One ``host[:port]`` or a list of them, to connect to. Those that stand for every address of a machine are
        read as its loopback, with a warning."""
        found = []
        for line, text in self.texts(key, single=True):
            server = self.checked(line, key, lambda text=text: parse_server(text, default_port))  # type: ignore[misc]
            if server is None:
                continue
            if server.any_host:
                self.findings.warn(
                    line, f"{self._full(key)}: {quoted(text)} is read as this host's own {server.local}."
                )
            found.append(server.local)
        return tuple(found)

    def file_path(self, key: str, default: str | None) -> str | None:
        """An absolute path. A relative one is resolved from the folder of the configuration file."""
        text = self.text(key, None)
        if text is None:
            return default
        if text.startswith("~"):
            self._say(key, f"'~' has no meaning here. Write {quoted(text)} as an absolute path.")
            return default
        folder = os.path.dirname(os.path.abspath(self.findings.filename))
        return os.path.normpath(os.path.join(folder, text))

    def pairs(self, key: str) -> list[tuple[int, str, str]]:
        """The line, name and text of each entry of a mapping; texts are just as written."""
        node = self._node(key)
        if node is None:
            return []
        if not isinstance(node, yaml.MappingNode):
            self._wrong(node, key, "names and values, such as 'env: prod', one below the other")
            return []
        listed = Section(self.findings, node, self._full(key))
        found = []
        for name, (line, value) in listed.entries.items():
            if isinstance(value, yaml.ScalarNode):
                found.append((line, name, "" if value.tag == NULL else str(value.value)))
            else:
                self.findings.error(line, f"{listed._full(name)} must have one text as its value.")
        return found

    def checked(self, line: int, key: str, make: Callable[[], T]) -> T | None:
        """The result of ``make``; ``None`` if it raises :class:`BadParameter`, which is noted at ``line``."""
        try:
            return make()
        except BadParameter as e:
            self.findings.error(line, f"{self._full(key)}: {e}")
            return None

    # -- inside

    def _full(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def _inside(self) -> str:
        return f" in {self.path}" if self.path else ""

    def _line(self, key: str) -> int:
        return self.entries[key][0]

    def _know(self, key: str) -> None:
        if key not in self.known:
            self.known.append(key)

    def _node(self, key: str) -> yaml.Node | None:
        self._know(key)
        _, node = self.entries.get(key, (0, None))
        return None if node is None or is_empty(node) else node

    def _say(self, key: str, sentence: str) -> None:
        self.findings.error(self._line(key), f"{self._full(key)}: {sentence}")

    def _wrong(self, node: yaml.Node, key: str, right: str) -> None:
        given = f", not {_shown(node)}" if isinstance(node, yaml.ScalarNode) else ""
        self.findings.error(line_of(node), f"{self._full(key)} must be {right}{given}.")

    def _text(self, node: yaml.Node, what: str, *, secret: bool) -> str | None:
        problem = None
        if not isinstance(node, yaml.ScalarNode) or node.tag == NULL:
            problem = "must be one text"
        elif node.tag == _BOOL:
            problem = f"must be a text; {_shown(node)} means yes or no to YAML. Put it in quotes if it is meant"
        elif node.tag not in _PLAIN:
            problem = "must be plain text, without a YAML tag"
        elif not node.value.isprintable():
            problem = "must be on one line and without control characters"
        if problem is not None:
            self.findings.error(line_of(node), f"{what} {problem}.")
            return None
        return str(node.value).strip()


def _choice(given: str, allowed: Iterable[str]) -> str:
    names = list(allowed)
    close = [name for name in names if name.startswith(given)] or difflib.get_close_matches(given, names, 1)
    return f"{f'Did you mean {quoted(close[0])}? ' if close else ''}Possible: {', '.join(names)}."


def _shown(node: yaml.ScalarNode) -> str:
    text = str(node.value)
    return quoted(text if len(text) <= 40 else text[:37] + "...")
