"""Any sequence of operations gives the same with every store as with a dictionary."""

from __future__ import annotations

import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.threads import blockingCallFromThread, deferToThread

from teleconch.backend.interface import ABSENT, EXISTS, Backend, Check, Delete, Put
from teleconch.backend.memory import MemoryBackend
from teleconch.backend.sqlite import SqliteBackend
from teleconch.errors import AlreadyExists, CompareFailed, NotFound
from tests.worlds.reactor import reactor

KEYS = st.sampled_from(["/a/1", "/a/2", "/a/2/x", "/a-/1", "/a0", "/a", "/b/1", "/A/1"])
PREFIXES = st.sampled_from(["/", "/a/", "/a/2/", "/a-/", "/b/", "/c/"])
VALUES = st.binary(max_size=8)
ENDS = st.none() | st.integers(-2, 30)
EXPECTS = st.sampled_from([None, ABSENT, EXISTS, "current", "old"])


def do(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return blockingCallFromThread(reactor, Deferred.fromCoroutine, coroutine)


class StoreMachine(RuleBasedStateMachine):
    """``model``: key -> (value, expires, revision), with what has expired still in it until it is looked at."""

    def make(self) -> Backend:
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.store = self.make()
        self.watch = do(self.store.watch("/a/"))
        self.model: dict[Any, Any] = {}
        self.seen: dict[Any, Any] = {}  # what a watcher believes
        self.revision = 0

    def teardown(self) -> None:
        if hasattr(self, "store"):
            do(self.store.close())

    def alive(self, key: str) -> tuple[Any, ...] | None:
        entry = self.model.get(key)
        return None if entry is None or (entry[1] is not None and entry[1] <= self.clock.seconds()) else entry

    def end(self, ttl: int | None) -> float | None:
        return None if ttl is None else self.clock.seconds() + ttl

    def wrote(self, revision: int) -> None:
        assert revision > self.revision
        self.revision = revision

    def attempt(self, coroutine: Coroutine[Any, Any, Any], kind: Any) -> int | None:
        """The result, or None where this kind of error came."""
        try:
            revision: int = do(coroutine)
            return revision
        except kind:
            return None

    @rule(key=KEYS, value=VALUES, ttl=ENDS)
    def create(self, key: str, value: bytes, ttl: int | None) -> None:
        revision = self.attempt(self.store.create(key, value, self.end(ttl)), AlreadyExists)
        assert (revision is not None) == (self.alive(key) is None)
        if revision is not None:
            self.wrote(revision)
            self.model[key] = (value, self.end(ttl), revision)

    @rule(key=KEYS, value=VALUES, ttl=ENDS)
    def put(self, key: str, value: bytes, ttl: int | None) -> None:
        self.wrote(do(self.store.put(key, value, self.end(ttl))))
        self.model[key] = (value, self.end(ttl), self.revision)

    @rule(key=KEYS, value=VALUES, ttl=ENDS)
    def update(self, key: str, value: bytes, ttl: int | None) -> None:
        revision = self.attempt(self.store.update(key, value, self.end(ttl)), NotFound)
        assert (revision is not None) == (self.alive(key) is not None)
        if revision is not None:
            self.wrote(revision)
            self.model[key] = (value, self.end(ttl), revision)

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        there = self.alive(key) is not None
        try:
            do(self.store.delete(key))
            assert there
            del self.model[key]
        except NotFound:
            assert not there

    @rule(changes=st.lists(st.tuples(KEYS, VALUES, ENDS, EXPECTS, st.sampled_from("pdc")), min_size=1, max_size=4))
    def commit(self, changes: list[Any]) -> None:
        made: list[Any] = []
        met = True
        for key, value, ttl, wish, what in {change[0]: change for change in changes}.values():
            entry = self.alive(key)
            current = ABSENT if entry is None else entry[2]
            expect = {"current": current, "old": 10**9}.get(wish, wish)
            if what == "c" and expect is None:
                expect = current
            met = met and (expect is None or (current != ABSENT if expect == EXISTS else current == expect))
            made.append(
                {"p": Put(key, value, self.end(ttl), expect), "d": Delete(key, expect)}.get(what) or Check(key, expect)
            )
        revision = self.attempt(self.store.commit(*made), CompareFailed)
        assert (revision is not None) == met
        if revision is not None:
            self.wrote(revision)
            for change in made:
                if isinstance(change, Put):
                    self.model[change.key] = (change.value, change.expires, revision)
                elif isinstance(change, Delete):
                    self.model.pop(change.key, None)

    @rule(seconds=st.integers(1, 20))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule()
    def sweep(self) -> None:
        gone = [key for key in self.model if self.alive(key) is None]
        assert do(self.store.sweep()) == len(gone)
        for key in gone:
            del self.model[key]

    @rule(prefix=PREFIXES, after=KEYS | st.just(""), limit=st.integers(0, 4))
    def range(self, prefix: str, after: str, limit: int) -> None:
        items = do(self.store.range(prefix, after, limit))
        expected = [key for key in sorted(self.model) if key.startswith(prefix) and key > after and self.alive(key)]
        assert [item.key for item in items] == expected[:limit]

    @rule()
    def listen(self) -> None:
        do(self.store.put("/a/listen", b""))
        for event in do(self.watch.events()):
            if event.item is None:
                self.seen.pop(event.key, None)
            else:
                self.seen[event.key] = (event.item.value, event.item.expires, event.item.revision)
        do(self.store.delete("/a/listen"))
        do(self.watch.events())
        self.seen.pop("/a/listen")
        assert self.seen == {key: entry for key, entry in self.model.items() if key.startswith("/a/")}

    @invariant()
    def same_as_the_model(self) -> None:
        if hasattr(self, "store"):
            for key in ("/a/1", "/a/2/x", "/a"):
                item = do(self.store.find(key))
                assert (item and (item.value, item.expires, item.revision)) == self.alive(key)


class MemoryMachine(StoreMachine):
    def make(self) -> MemoryBackend:
        return MemoryBackend(self.clock.seconds)


class SqliteMachine(StoreMachine):
    def make(self) -> SqliteBackend:
        self.folder = tempfile.TemporaryDirectory()
        return SqliteBackend(Path(self.folder.name) / "state.db", reactor, self.clock.seconds)

    @rule()
    def restart(self) -> None:
        do(self.store.close())
        self.store = SqliteBackend(Path(self.folder.name) / "state.db", reactor, self.clock.seconds)
        self.watch = do(self.store.watch("/a/"))
        self.seen = {key: entry for key, entry in self.model.items() if key.startswith("/a/")}

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "folder"):
            self.folder.cleanup()


@pytest.mark.parametrize("machine", [MemoryMachine, SqliteMachine])
@pytest_twisted.ensureDeferred
async def test_store_is_like_a_dictionary(machine: type[MemoryMachine] | type[SqliteMachine]) -> None:
    """Whatever happens in whatever order, reads, refusals and watches are as a user of the store expects."""
    examples = settings(
        max_examples=60 if machine is MemoryMachine else 15,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    await deferToThread(run_state_machine_as_test, machine, settings=examples)
