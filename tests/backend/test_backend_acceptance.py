"""What every store must do. A new store is added to the fixture ``backend`` and must pass all of this."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet.defer import gatherResults
from twisted.internet.task import Clock

from teleconch.backend.interface import ABSENT, EXISTS, RANGE_MAX, Backend, Check, Delete, Put
from teleconch.errors import AlreadyExists, BadParameter, CompareFailed, NotFound, Unavailable
from tests.worlds.waiting import spawn


async def keys(backend: Backend, prefix: str) -> list[str]:
    return [item.key async for item in backend.all(prefix)]


@pytest_twisted.ensureDeferred
async def test_what_is_written_is_read(backend: Backend) -> None:
    """Nothing that was stored comes back changed."""
    revision = await backend.create("/users/alice", b"\x00one\xff")
    item = await backend.get("/users/alice")
    assert (item.value, item.expires, item.revision) == (b"\x00one\xff", None, revision)
    assert await backend.put("/users/alice", b"two") > revision
    assert (await backend.get("/users/alice")).value == b"two"
    assert await backend.update("/users/alice", b"") > revision
    assert (await backend.get("/users/alice")).value == b""


@pytest_twisted.ensureDeferred
async def test_create_refuses_what_exists(backend: Backend) -> None:
    """Two administrators who add the same user do not overwrite each other."""
    await backend.create("/users/alice", b"one")
    with pytest.raises(AlreadyExists):
        await backend.create("/users/alice", b"two")
    assert (await backend.get("/users/alice")).value == b"one"


@pytest_twisted.ensureDeferred
async def test_update_and_delete_need_something_there(backend: Backend) -> None:
    """A user who was deleted does not come back because somebody else saves an old form."""
    for attempt in (backend.update("/a/b", b""), backend.delete("/a/b"), backend.get("/a/b")):
        with pytest.raises(NotFound):
            await attempt
    await backend.create("/a/b", b"")
    await backend.delete("/a/b")
    with pytest.raises(NotFound):
        await backend.update("/a/b", b"")
    assert await backend.find("/a/b") is None


@pytest_twisted.ensureDeferred
async def test_compare_and_swap_lets_one_of_many_win(backend: Backend) -> None:
    """Of two answers to one question only one is stored: no lost update."""
    revision = await backend.create("/a/b", b"0")
    attempts = [spawn(backend.compare_and_swap("/a/b", revision, str(n).encode())) for n in range(20)]
    results = await gatherResults(
        [attempt.addErrback(lambda failure: failure.trap(CompareFailed)) for attempt in attempts]
    )
    assert sum(isinstance(result, int) for result in results) == 1
    with pytest.raises(CompareFailed):
        await backend.compare_and_swap("/a/none", 7, b"")


@pytest_twisted.ensureDeferred
async def test_revisions_are_never_used_twice(backend: Backend) -> None:
    """An item that was deleted and made again is not mistaken for the one that was read before."""
    first = await backend.create("/a/b", b"same")
    await backend.delete("/a/b")
    second = await backend.create("/a/b", b"same")
    assert second > first
    with pytest.raises(CompareFailed):
        await backend.compare_and_swap("/a/b", first, b"late")


@pytest_twisted.ensureDeferred
async def test_commit_is_all_or_nothing(backend: Backend) -> None:
    """A use case that writes two keys is never seen half done."""
    await backend.create("/a/1", b"")
    with pytest.raises(CompareFailed):
        await backend.commit(Put("/a/2", b""), Delete("/a/1"), Check("/a/3", EXISTS))
    assert await keys(backend, "/a/") == ["/a/1"]
    revision = await backend.commit(Put("/a/2", b"", expect=ABSENT), Delete("/a/1", EXISTS), Check("/a/3", ABSENT))
    assert await keys(backend, "/a/") == ["/a/2"]
    assert (await backend.get("/a/2")).revision == revision


@pytest_twisted.ensureDeferred
async def test_commit_refuses_what_makes_no_sense(backend: Backend) -> None:
    """A slip in a use case is told, not stored."""
    for changes in (
        (),
        (Put("/a", b""), Delete("/a")),
        (Put("a", b""),),
        (Put("/a/", b""),),
        (Put("/a//b", b""),),
        (Put("/a b", b""),),
        (Put("/a\n", b""),),
        (Put("/ä", b""),),
        (Put("/" + "a" * 600, b""),),
        (Put("/a", b"x" * (1024 * 1024 + 1)),),
        (Put("/a", b"", float("nan")),),
        (Put("/a", b"", float("inf")),),
    ):
        with pytest.raises(BadParameter):
            await backend.commit(*changes)
    assert await backend.range("/") == ()
    for prefix in ("", "/a", "a/", "/a b/"):
        with pytest.raises(BadParameter):
            await backend.range(prefix)
    with pytest.raises(BadParameter):
        await backend.watch("/a")


@pytest_twisted.ensureDeferred
async def test_range_gives_pages_in_order(backend: Backend) -> None:
    """A list of nodes shows each once, in order, whatever the size of the pages; and no neighbours' items."""
    names = [f"/n/{number:04}" for number in range(RANGE_MAX + 3)]
    await gatherResults(
        [spawn(backend.put(name, b"")) for name in [*names[::-1], "/m/x", "/n-/x", "/n0", "/n", "/o/x"]]
    )
    assert await keys(backend, "/n/") == names
    assert [item.key for item in await backend.range("/n/", limit=2)] == names[:2]
    assert [item.key for item in await backend.range("/n/", "/n/0001", 2)] == names[2:4]
    assert [item.key for item in await backend.range("/n/", "/n/0001x", 1)] == names[2:3]
    assert len(await backend.range("/n/", limit=10_000)) == RANGE_MAX
    assert await backend.range("/n/", "/n/9999") == ()
    assert await backend.range("/n/", "/z") == ()
    assert await backend.range("/n/", limit=0) == ()


@pytest_twisted.ensureDeferred
async def test_items_vanish_at_their_end(backend: Backend, clock: Clock) -> None:
    """A join token stops to work when its time is over, even if nothing swept it away."""
    await backend.create("/t/a", b"", clock.seconds() + 10)
    clock.advance(9.99)
    assert await backend.find("/t/a") is not None
    clock.advance(0.01)
    assert await backend.find("/t/a") is None
    assert await backend.range("/t/") == ()
    with pytest.raises(NotFound):
        await backend.update("/t/a", b"")
    with pytest.raises(NotFound):
        await backend.delete("/t/a")
    await backend.create("/t/a", b"again")
    clock.advance(1000)
    assert (await backend.get("/t/a")).value == b"again"


@pytest_twisted.ensureDeferred
async def test_an_expired_revision_is_no_revision(backend: Backend, clock: Clock) -> None:
    """What has ended cannot be swapped back to life by who read it in time."""
    revision = await backend.create("/t/a", b"", clock.seconds() + 10)
    clock.advance(10)
    with pytest.raises(CompareFailed):
        await backend.compare_and_swap("/t/a", revision, b"")
    await backend.commit(Check("/t/a", ABSENT), Put("/t/b", b""))


@pytest_twisted.ensureDeferred
async def test_put_moves_the_end(backend: Backend, clock: Clock) -> None:
    """A node that pings stays."""
    await backend.put("/p/a", b"", clock.seconds() + 10)
    clock.advance(8)
    await backend.put("/p/a", b"", clock.seconds() + 10)
    clock.advance(8)
    assert await backend.find("/p/a") is not None
    assert await backend.sweep() == 0


@pytest_twisted.ensureDeferred
async def test_sweep_removes_and_tells(backend: Backend, clock: Clock) -> None:
    """A node that is gone disappears from every proxy's directory."""
    await backend.put("/p/a", b"", clock.seconds() + 10)
    await backend.put("/p/b", b"", clock.seconds() + 20)
    await backend.put("/p/c", b"")
    watch = await backend.watch("/p/")
    clock.advance(10)
    assert await backend.sweep() == 1
    assert await backend.sweep() == 0
    (event,) = await watch.events()
    assert (event.key, event.item) == ("/p/a", None)
    assert await keys(backend, "/p/") == ["/p/b", "/p/c"]


@pytest_twisted.ensureDeferred
async def test_watch_tells_changes_in_order(backend: Backend) -> None:
    """A proxy's directory follows every change, and hears nothing of other keys."""
    await backend.put("/p/old", b"")
    watch = await backend.watch("/p/")
    first = await backend.put("/p/a", b"1")
    await backend.put("/q/a", b"")
    await backend.put("/p-/a", b"")
    await backend.delete("/p/old")
    await backend.commit(Put("/p/a", b"2"), Put("/p/b", b"3"), Delete("/p/none"))
    events = await watch.events()
    assert [(event.key, event.item and event.item.value) for event in events] == [
        ("/p/a", b"1"),
        ("/p/old", None),
        ("/p/a", b"2"),
        ("/p/b", b"3"),
    ]
    assert events[0].revision == events[0].item.revision == first
    assert [event.revision for event in events] == sorted(event.revision for event in events)


@pytest_twisted.ensureDeferred
async def test_watch_waits_for_the_next_change(backend: Backend) -> None:
    """A new node is told as it comes, not when somebody asks again."""
    watch = await backend.watch("/p/")
    waiting = spawn(watch.events())
    assert not waiting.called
    await backend.put("/p/a", b"")
    (event,) = await waiting
    assert event.key == "/p/a"


@pytest_twisted.ensureDeferred
async def test_a_slow_watcher_is_ended_and_told(backend: Backend) -> None:
    """One proxy that hangs costs a fixed amount of memory, and learns that it has to read again."""
    slow = await backend.watch("/p/", limit=3)
    quick = await backend.watch("/p/", limit=3)
    for number in range(4):
        await backend.put(f"/p/{number}", b"")
        await quick.events()
    with pytest.raises(Unavailable, match="fell behind"):
        await slow.events()
    with pytest.raises(Unavailable):
        await slow.events()
    await backend.put("/p/more", b"")
    assert len(await quick.events()) == 1


@pytest_twisted.ensureDeferred
async def test_stop_ends_a_watch(backend: Backend) -> None:
    """A connection that is gone leaves no watcher behind."""
    watch = await backend.watch("/p/")
    waiting = spawn(watch.events())
    watch.stop()
    watch.stop()
    with pytest.raises(Unavailable):
        await waiting
    await backend.put("/p/a", b"")
    with pytest.raises(Unavailable):
        await watch.events()


@pytest_twisted.ensureDeferred
async def test_close_ends_everything_with_a_sentence(backend: Backend) -> None:
    """A server that stops does not leave callers waiting."""
    watch = await backend.watch("/p/")
    waiting = spawn(watch.events())
    await backend.close()
    await backend.close()
    with pytest.raises(Unavailable, match="closed"):
        await waiting
    for attempt in (
        backend.put("/a", b""),
        backend.find("/a"),
        backend.range("/"),
        backend.watch("/"),
        backend.sweep(),
    ):
        with pytest.raises(Unavailable, match="closed"):
            await attempt


def test_values_do_not_show_themselves() -> None:
    """No CA key or password hash gets into a log by way of an item's or a change's text."""
    from teleconch.backend.interface import Item

    assert "hush" not in repr([Put("/a", b"hush"), Item("/a", b"hush", None, 1)])
