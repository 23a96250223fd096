"""Parses YAML into a tree of nodes that know their lines. No tag constructs anything, so a file cannot make objects."""

from __future__ import annotations

from typing import Any

import yaml
from attrs import define, evolve, field

from teleconch.errors import ConfigError

SIZE_MAX = 1 << 20  # characters

NULL = "tag:yaml.org,2002:null"

Notice = tuple[str, int, str]  # file, line, sentence: the form of ConfigError.problems


@define
class Findings:
    """What is wrong (``problems``) or odd (``warnings``) in one file, and the line of each of its keys.

    ``idle`` says why the values that are being read have no effect here, such as "auth_service does not run here";
    errors in them are then only warnings. It is ``None`` if they have an effect.
    """

    filename: str
    problems: list[Notice] = field(factory=list)
    warnings: list[Notice] = field(factory=list)
    lines: dict[str, int] = field(factory=dict)
    idle: str | None = None

    def error(self, line: int, sentence: str) -> None:
        """Note a value that is wrong."""
        if self.idle is None:
            self.refuse(line, sentence)
        else:
            self.warnings.append((self.filename, line, f"{sentence} (Only a warning: {self.idle}.)"))

    def refuse(self, line: int, sentence: str) -> None:
        """Note an error even if the value has no effect: a key that does not exist, or that is there twice."""
        self.problems.append((self.filename, line, sentence))

    def warn(self, line: int, sentence: str) -> None:
        """Note something odd, unless it has no effect."""
        if self.idle is None:
            self.warnings.append((self.filename, line, sentence))

    def while_idle(self, why: str) -> Findings:
        """The same findings, for values that have no effect here."""
        return evolve(self, idle=why)

    def line_of(self, *paths: str) -> int:
        """The line of the first of these keys (``auth_service.tokens``) that the file has; 1 if it has none."""
        return next((self.lines[path] for path in paths if path in self.lines), 1)

    def raise_problems(self) -> None:
        """:class:`ConfigError` with all problems in the order of the file, if there are any."""
        if self.problems:
            raise ConfigError(in_order(self.problems), in_order(self.warnings))


def parse_document(text: str, findings: Findings) -> yaml.MappingNode:
    """The file's top-level mapping. :class:`ConfigError` if the file is not YAML or not a mapping."""
    root: Any = None
    if len(text) > SIZE_MAX:
        findings.error(1, f"The file is larger than {SIZE_MAX // 1024} KiB. Is it a teleport.yaml?")
    else:
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError as e:
            _explain(e, text, findings)
        except RecursionError:
            findings.error(1, "The file is nested too deeply to be a teleport.yaml.")
        except (ValueError, OverflowError):  # PyYAML passes an escape like "\UFFFFFFFF" on to chr()
            findings.error(1, "The file has an escaped character that does not exist.")
        else:
            if root is None:
                findings.error(1, "The file is empty. Try: teleport configure > teleport.yaml")
            elif not isinstance(root, yaml.MappingNode):
                findings.error(
                    line_of(root), "The file must consist of sections such as 'teleport:', one below the other."
                )
    findings.raise_problems()
    assert isinstance(root, yaml.MappingNode)
    return root


def in_order(notices: list[Notice]) -> list[Notice]:
    """The notices in the order of the file, each once."""
    return sorted(dict.fromkeys(notices), key=lambda notice: notice[1])


def line_of(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def is_empty(node: yaml.Node) -> bool:
    """Whether ``node`` has no value: YAML's null, a blank string, ``{}``, or a list of only such values."""
    if isinstance(node, yaml.SequenceNode):
        return all(isinstance(item, yaml.ScalarNode) and is_empty(item) for item in node.value)
    if isinstance(node, yaml.ScalarNode):
        return node.tag == NULL or not node.value.strip()
    return not node.value


def _explain(error: yaml.YAMLError, text: str, findings: Findings) -> None:
    """Note what PyYAML stumbled over, in words for people who edit a configuration."""
    tabs = [n for n, line in enumerate(text.splitlines(), 1) if "\t" in line[: len(line) - len(line.lstrip())]]
    if tabs and isinstance(error, yaml.scanner.ScannerError):
        for line in tabs:
            findings.error(line, "This line is indented with a tab. YAML wants spaces there.")
        return
    if isinstance(error, yaml.reader.ReaderError):
        at = error.position if isinstance(error.position, int) else 0
        findings.error(text.count("\n", 0, at) + 1, "This line holds a control character. Remove it.")
        return
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
    problem = getattr(error, "problem", None) or "it cannot be read"
    if "expected a single document" in str(error):
        findings.error(line, "A second document begins here with '---'. A teleport.yaml is one document.")
        return
    context = getattr(error, "context", None)
    where = f" ({context})" if context else ""
    findings.error(
        line,
        f"This is not YAML: {problem}{where}, at column {column}. "
        "Check colons, quotes and indentation here and in the line above.",
    )
