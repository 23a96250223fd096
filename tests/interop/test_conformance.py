"""The node beside sshd: each behaviour is measured on both; what differs has a reason. Makes docs/conformance.rst."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout

from tests.interop import conformance_table
from tests.interop.conformance import BEHAVIOURS, Behaviour, Row, Side, release, sides
from tests.worlds.reactor import reactor

LIMIT = 45  # seconds for one behaviour on one side
MODULES = (
    "conformance_strangers",
    "conformance_sessions",
    "conformance_logins",
    "conformance_pam",
    "conformance_rc",
    "conformance_shells",
    "conformance_rights",
    "conformance_changes",
    "conformance_limits",
    "conformance_files",
    "conformance_copies",
    "conformance_forwarding",
    "conformance_refusals",
    "conformance_listening",
    "conformance_agent_x11",
)
for module in MODULES:
    import_module(f"tests.interop.{module}")

GROUPS = tuple(dict.fromkeys(each.group for each in BEHAVIOURS))
PROGRAMS = {"Login shells": ("dash", "ksh", "mksh", "zsh", "tcsh", "fish"), "sudo and su": ("sudo",)}


async def _seen(behaviour: Behaviour, side: Side) -> str:
    measuring = Deferred.fromCoroutine(behaviour.measure(side)).addTimeout(LIMIT, reactor)
    try:
        return str(await measuring)
    except (AssertionError, LookupError, DeferredTimeout) as error:
        return f"not measured: {error!r}"[:300]


@pytest.mark.program("ssh", "sshd")
@pytest.mark.root
@pytest.mark.parametrize(
    "group", [pytest.param(group, marks=pytest.mark.program(*PROGRAMS.get(group, ()))) for group in GROUPS]
)
@pytest_twisted.ensureDeferred
async def test_as_sshd(tmp_path: Path, group: str) -> None:
    """A user or tool that is used to sshd finds the same here, or the table says what is different and why."""
    tmp_path.chmod(0o755)
    rows: list[Row] = []
    ours = [each for each in BEHAVIOURS if each.group == group]
    for settings in dict.fromkeys(each.settings for each in ours):
        async with sides(tmp_path, settings) as (sshd, node):
            for each in ours:
                if each.settings == settings:
                    rows.append(Row(each, await _seen(each, sshd), await _seen(each, node)))
    rows.sort(key=lambda row: ours.index(row.behaviour))
    beside = release()
    unmeasured = [row.behaviour.name for row in rows if "not measured" in row.sshd + row.node]
    problems = [problem for row in rows if (problem := row.problem(beside)) is not None]
    assert not unmeasured + problems, "\n" + "\n".join(unmeasured + problems)
    if os.environ.get("CONFORMANCE") == "write":
        conformance_table.write(rows, beside)
    measured = conformance_table.read()
    changes = [change for row in rows if (change := conformance_table.change(row, measured, beside)) is not None]
    assert not changes, "\n" + "\n".join(changes)


def test_the_table_is_whole() -> None:
    """docs/conformance.rst has what was measured of each behaviour on each release, and nothing else."""
    measured = conformance_table.read()
    for each in BEHAVIOURS:
        assert list(measured[each.group][each.name]) == list(conformance_table.RELEASES), each.name
    assert sum(map(len, measured.values())) == len(BEHAVIOURS)
    assert conformance_table.TABLE.read_text() == conformance_table.table(measured)
