"""Places that are few, for which very many may wait."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from teleconch.places import Places


def test_thousands_who_need_no_time() -> None:
    """Thousands who wait, and have nothing to do once they have a place, all get one, in the order in which they came;
    never are more in than there are places."""
    places, got, inside = Places(2), [], []

    async def comes(number: int) -> None:
        await places.acquire()
        inside.append(number)
        got.append(number)
        assert len(inside) <= 2
        inside.remove(number)
        places.release()
        if number % 1000 == 0:  # comes again, within a release
            await places.acquire()
            places.release()

    held = [places.acquire(), places.acquire()]
    assert all(each.called for each in held)
    waiting = [Deferred.fromCoroutine(comes(number)) for number in range(5000)]
    assert not got
    places.release()
    places.release()
    assert got == list(range(5000))
    assert all(each.called for each in waiting)
    assert places.tokens == places.limit
