"""Output: tables and pairs for people, YAML and JSON for programs.

A pipe or a file gets plain text in Teleport's columns. A terminal gets the same in colour, with long columns folded
between words instead of broken anywhere. Whatever a host or user chose (labels, names) passes through ``text.shown``,
so that it cannot control the terminal on which it is listed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import click
from attrs import frozen

from teleconch.text import shown

Format = Literal["text", "yaml", "json"]
FORMATS: tuple[Format, ...] = ("text", "yaml", "json")

_GAP = 2


@frozen
class Column:
    """``fold``: the column may be broken over several lines if the terminal is narrow; others (names, UUIDs) stay
    whole.

    ``style`` is a rich style for the cells, or a function from a cell's text to one; it is used on a terminal only.
    """

    title: str
    fold: bool = False
    style: str | Callable[[str], str] = ""

    def style_of(self, cell: str) -> str:
        return self.style if isinstance(self.style, str) else self.style(cell)


def format_option(default: Format = "text") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option ``--format=text|yaml|json``; the command's parameter is ``output_format``."""
    return click.option(
        "--format",
        "output_format",
        type=click.Choice(FORMATS),
        default=default,
        show_default=True,
        help="How to print: for people, or for programs.",
    )


def labels_text(labels: Mapping[str, str]) -> str:
    """``env=prod,os=linux``: sorted by name, in the form that ``tsh ls`` accepts."""
    return ",".join(f"{name}={labels[name]}" for name in sorted(labels))


def write_table(columns: Sequence[str | Column], rows: Iterable[Sequence[str]], *, empty: str = "") -> None:
    """Print rows under their titles; if there are none and ``empty`` is given, print that sentence on stderr."""
    heads = [Column(column) if isinstance(column, str) else column for column in columns]
    cells = [[shown(cell) for cell in row] for row in rows]
    if not cells and empty:
        click.echo(empty, err=True)
        return
    if sys.stdout.isatty():
        _write_rich(heads, cells)
    else:
        _write_plain(heads, cells)


def write_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """Print ``title  value`` lines with the values in one column. A value may have several lines."""
    listed = [(title, [shown(line) for line in value.split("\n")]) for title, value in pairs]
    width = max((len(title) for title, _ in listed), default=0)
    for title, lines in listed:
        head = title.ljust(width)
        for line in lines:
            click.echo(f"{click.style(head, bold=True)}{' ' * _GAP}{line}".rstrip())
            head = " " * width


def write_document(value: object, output_format: str) -> None:
    """Print plain data (dict, list, str, int, float, bool, None) as ``yaml`` or ``json``."""
    from teleconch.resources.text import json_text, yaml_text

    click.echo(json_text(value) if output_format == "json" else yaml_text(value), nl=False)


def _cell_len(text: str) -> int:
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _write_plain(heads: list[Column], cells: list[list[str]]) -> None:
    widths = [max([_cell_len(head.title), *(_cell_len(row[i]) for row in cells)]) for i, head in enumerate(heads)]
    for row in ([head.title for head in heads], ["-" * width for width in widths], *cells):
        padded = (cell + " " * (width - _cell_len(cell)) for cell, width in zip(row, widths, strict=True))
        click.echo((" " * _GAP).join(padded).rstrip())


def _write_rich(heads: list[Column], cells: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=False)
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold", show_edge=False)
    longest = [max([_cell_len(head.title), *(_cell_len(row[i]) for row in cells)]) for i, head in enumerate(heads)]
    least = [
        min(width, max(len(head.title), 12)) if head.fold else width for head, width in zip(heads, longest, strict=True)
    ]
    gaps = _GAP * len(heads)  # there is one after the last column too
    # If that does not fit, print each row in one line, which the terminal wraps, rather than cut names that people
    # copy.
    fits = sum(least) + gaps <= console.width
    for head, width in zip(heads, least if fits else longest, strict=True):
        table.add_column(head.title, no_wrap=not (head.fold and fits), overflow="fold", min_width=width)
    for row in cells:
        table.add_row(*(Text(cell, style=head.style_of(cell)) for cell, head in zip(row, heads, strict=True)))
    console.print(table, width=console.width if fits else sum(longest) + gaps, crop=False, no_wrap=None)
