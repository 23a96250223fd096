"""RFC 4251's data types."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleconch import codec
from teleconch.ssh.problems import ProtocolProblem
from teleconch.ssh.reader import Reader


@given(st.binary(max_size=100), st.integers(0, 2**32 - 1), st.booleans(), st.lists(st.binary(min_size=1, max_size=9)))
def test_round_trip(data: bytes, number: int, truth: bool, names: list[bytes]) -> None:
    """What one side writes the other reads."""
    names = [name.replace(b",", b".") for name in names]
    wire = codec.string(data) + codec.uint32(number) + codec.boolean(truth) + codec.name_list(tuple(names)) + b"rest"
    reader = codec.Reader(wire)
    assert reader.string() == data
    assert reader.uint32() == number
    assert reader.boolean() is truth
    assert reader.name_list() == tuple(names)
    assert reader.rest() == b"rest"
    reader.end()


@given(st.integers(0, 2**521))
def test_numbers(number: int) -> None:
    """Big numbers keep their value and are never taken for negative ones."""
    wire = codec.mpint(number.to_bytes(66, "big"))
    assert codec.Reader(wire).mpint() == number
    assert number == 0 or not (wire[4] == 0 and wire[5] < 0x80)


@given(st.sampled_from([(codec.Reader, codec.Malformed), (Reader, ProtocolProblem)]), st.binary(max_size=40))
def test_garbage_is_one_kind_of_error(reading: tuple[type[codec.Reader], type[Exception]], data: bytes) -> None:
    """Nothing that a peer sends makes a reader raise anything but its own problem, or read past the end."""
    kind, problem = reading
    for read in ("byte", "boolean", "uint32", "string", "mpint", "name_list"):
        reader = kind(data)
        try:
            while True:
                getattr(reader, read)()
        except problem:
            pass
    reader = kind(data + b"x")
    with pytest.raises(problem):
        reader.end()
