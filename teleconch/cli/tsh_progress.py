"""What ``tsh scp`` shows on a terminal: a line for each file, with as many columns as the width allows."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID
from rich.table import Column, Table
from rich.text import Text

from teleconch.cli import boundary
from teleconch.text import shown

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_BAR_FROM: Final = 78  # width from which a terminal has room for a bar
_TIME_FROM: Final = 48
_RATE_FROM: Final = 36
_BAR: Final = 20
_WRITE_SECONDS: Final = 0.1  # the lines of small files are written together
_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB")


def amount(count: float) -> str:
    """A number of bytes in five characters and a decimal unit: ``999 B``, ``12.3 MB``."""
    unit = 0
    while count >= 999.5 and unit < len(_UNITS) - 1:
        count /= 1000
        unit += 1
    return f"{count:.0f} B" if not unit else f"{count:.{0 if count >= 99.95 else 1}f} {_UNITS[unit]}"


def clock(seconds: float) -> str:
    """``0:07``, ``12:30``, ``3:05:00``."""
    whole = max(0, round(seconds))
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


class _Name(ProgressColumn):
    """The file's name, cut if the terminal is narrow."""

    def render(self, task: Task) -> Text:
        return Text(task.description, no_wrap=True, overflow="ellipsis")


class _Figure(ProgressColumn):
    """The part done, the size, the rate, or the time."""

    def __init__(self, what: str, width: int) -> None:
        self._what = what
        super().__init__(Column(width=width, justify="right", no_wrap=True))

    def render(self, task: Task) -> Text:
        return Text(getattr(self, "_" + self._what)(task), style="" if task.finished else "cyan")

    @staticmethod
    def _part(task: Task) -> str:
        return "" if task.total is None else f"{task.percentage:.0f}%"

    @staticmethod
    def _size(task: Task) -> str:
        return amount(task.fields.get("moved", task.completed))

    @staticmethod
    def _rate(task: Task) -> str:
        speed = None if task.finished else task.speed
        if speed is None and task.elapsed:
            speed = task.fields.get("moved", task.completed) / task.elapsed
        return f"{amount(speed)}/s" if speed else ""

    @staticmethod
    def _time(task: Task) -> str:
        """The time that is left, or that it took."""
        if task.finished or task.stop_time is not None:
            return clock(task.finished_time or task.elapsed or 0)
        return f"{clock(task.time_remaining)} left" if task.time_remaining is not None else "-:-- left"


class _Unhurried(Progress):
    """Draws ten times a second rather than for each file."""

    def refresh(self) -> None:
        pass


class Bar:
    """A line for each file, with its rate and the time that is left. Lines of files that are done stay above it."""

    def __init__(self, console: Console | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self._progress = _Unhurried(console=console, expand=True, redirect_stdout=False, redirect_stderr=False)
        self._progress.columns = ()
        self._now = now
        self._task: TaskID | None = None
        self._started = False
        self._done: list[list[RenderableType]] = []
        self._written = now()

    def _fit(self) -> None:
        """Choose columns for the terminal's current width."""
        width = self._progress.console.width
        columns: list[ProgressColumn] = [_Name(Column(ratio=1, no_wrap=True, overflow="ellipsis", min_width=4))]
        if width >= _BAR_FROM:
            columns.append(BarColumn(_BAR))
        columns += [_Figure("part", 4), _Figure("size", 7)]
        if width >= _RATE_FROM:
            columns.append(_Figure("rate", 9))
        if width >= _TIME_FROM:
            columns.append(_Figure("time", 10))
        if len(columns) != len(self._progress.columns):
            self._write_done()
            self._progress.columns = tuple(columns)

    def begin(self, name: str, size: int) -> None:
        """A file of ``size`` bytes begins. 0 may mean a file of the kernel's, whose size is unknown."""
        self._keep()
        self._fit()
        if not self._started:
            self._started = True
            self._progress.start()
        elif self._now() - self._written > _WRITE_SECONDS:
            self._write_done()
        self._task = self._progress.add_task(shown(name, mark="?"), total=size or None)

    def moved(self, count: int) -> None:
        """``count`` more bytes have been copied."""
        if self._task is not None:
            self._progress.advance(self._task, count)

    def end(self) -> None:
        """The file has been copied, or has failed: its line stays as it is."""
        if self._task is None:
            return
        task = self._progress.tasks[0]
        if task.total is None:  # empty, or the kernel's: it is complete
            self._progress.update(self._task, total=1, completed=1, moved=task.completed)
        self._progress.stop_task(self._task)

    def fail(self, sentence: str) -> None:
        """Say what went wrong, above the line of the file in progress."""
        if not self._started or not sys.stderr.isatty():
            boundary.say_error(sentence)
            return
        if self._task is not None and self._progress.tasks[0].stop_time is not None:
            self._keep()
        self._write_done()
        self._progress.console.print(
            Text.assemble(("ERROR:", "bold red"), " ", shown(sentence, mark="?")), soft_wrap=True
        )

    def _keep(self) -> None:
        """Stop redrawing the previous file's line."""
        if self._task is not None:
            task = self._progress.tasks[0]
            self._done.append([column(task) for column in self._progress.columns if isinstance(column, ProgressColumn)])
            self._progress.remove_task(self._task)
            self._task = None

    def _write_done(self) -> None:
        done, self._done = self._done, []
        self._written = self._now()
        if done:
            columns = [
                each.get_table_column().copy() for each in self._progress.columns if isinstance(each, ProgressColumn)
            ]
            table = Table.grid(*columns, padding=(0, 1), expand=True)
            for row in done:
                table.add_row(*row)
            self._progress.console.print(table)

    def stop(self) -> None:
        """There are no more files."""
        if self._started:
            self._fit()
            self._write_done()
            self._progress.stop()


__all__ = ["Bar", "amount", "clock"]
