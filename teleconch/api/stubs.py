"""Objects that implement a noun of the API by passing every call on to one function.

The wire's client and the auth server's checks are both made this way: each passes on every method declared in
``interface.py``, and nobody has to write that by hand. mypy sees the protocol.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from functools import cache, wraps
from typing import Any, TypeVar

from teleconch.api.codec import Method, methods_in

Noun = TypeVar("Noun")
Call = Callable[[Method, tuple[Any, ...]], Coroutine[Any, Any, Any]]


def stub(noun: type[Noun], call: Call) -> Noun:
    """An implementation of the protocol ``noun``: each of its methods returns what ``call(method, arguments)`` does,
    with the arguments in the order of the declaration."""
    protocol: Any = noun
    made: Noun = _class_of(protocol)(call)
    return made


@cache
def _class_of(noun: type[Any]) -> Callable[[Call], Any]:
    """The stub's class, made once for each noun, so that a stub costs no more than any small object."""

    class Stub:
        __slots__ = ("_call",)

        def __init__(self, call: Call) -> None:
            self._call = call

    for method in methods_in(noun).values():
        setattr(Stub, method.name, _passing_on(method))
    Stub.__name__ = Stub.__qualname__ = f"{noun.__name__}Stub"
    return Stub


def _passing_on(method: Method) -> Callable[..., Coroutine[Any, Any, Any]]:
    declared = getattr(method.noun, method.name)
    signature = inspect.signature(declared)
    count = len(signature.parameters) - 1

    @wraps(declared)
    def passed_on(self: Any, *arguments: Any, **named: Any) -> Coroutine[Any, Any, Any]:
        if named or len(arguments) != count:
            bound = signature.bind(self, *arguments, **named)  # TypeError, as for any function
            bound.apply_defaults()
            arguments = bound.args[1:]
        call: Call = self._call
        return call(method, arguments)

    return passed_on
