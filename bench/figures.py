"""What is kept of the measures: the value of each figure by peer and round, and what went wrong."""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Callable

from bench.processes import NotReady


class Wrong(Exception):
    """A transfer did not deliver what was sent, or nothing came back."""


_FAILURES = (Wrong, NotReady, subprocess.SubprocessError, OSError)
Measured = float | tuple[float, ...]


class Figures:
    """``values[figure][peer]`` in the order of the rounds; ``units[figure]`` with whether more is better."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, list[float]]] = {}
        self.units: dict[str, tuple[str, bool]] = {}
        self.wrong: dict[str, dict[str, list[str]]] = {}

    def take(self, peer: str, measure: Callable[[], Measured], unit: str, *names: str, more: bool = False) -> None:
        """Run a measure that gives the values of these figures; what goes wrong is kept beside them.

        ``unit`` is of all of them, or one for each with commas between.
        """
        units = unit.split(", ")
        for number, name in enumerate(names):
            self.units.setdefault(name, (units[min(number, len(units) - 1)], more))
        try:
            measured = measure()
        except _FAILURES as problem:
            sentence = str(problem)
            if isinstance(problem, subprocess.CalledProcessError):
                said = (problem.stderr or b"").strip()
                sentence = f"the client ended with {problem.returncode}" + (f": {said!r}" if said else "")
            for name in names:
                self.wrong.setdefault(name, {}).setdefault(peer, []).append(sentence)
            return
        for name, value in zip(names, measured if isinstance(measured, tuple) else (measured,), strict=True):
            self.values.setdefault(name, {}).setdefault(peer, []).append(value)

    def median(self, figure: str, peer: str) -> float | None:
        found = self.values.get(figure, {}).get(peer)
        return statistics.median(found) if found else None
