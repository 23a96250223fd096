"""JSON (RFC 8259) from a peer, without the extensions of Python's reader.

Python also accepts UTF-16, NaN, numbers of any length, lone surrogates and duplicate names. Each of them makes a value
that a later step cannot write, or that another program reads differently. Numbers are limited to 64 bits.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final

from teleconch.errors import BadParameter

DEPTH_MAX: Final = 12  # nesting of values; what this project sends needs 6
_DIGITS_MAX: Final = 18  # of an integer: 18 digits always fit below 2**63


class _Refused(ValueError):
    """Why a text is refused. It never quotes the text, which may hold a secret."""


def read_json(data: bytes, what: str) -> Any:
    """The value in ``data``. BadParameter, which says why ``what`` (the start of the sentence) is refused."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise BadParameter(f"{what} cannot be read: it is not UTF-8 text.") from None
    if text.startswith("\ufeff"):
        raise BadParameter(f"{what} cannot be read: it begins with a byte order mark; leave that out.")
    try:
        value = json.loads(
            text, parse_constant=_constant, parse_float=_float, parse_int=_int, object_pairs_hook=_object
        )
        if _deeper_than(value, DEPTH_MAX):
            raise _Refused("values are nested too deep")
        if "\\u" in text and _has_half(value):
            raise _Refused("a string holds half of a surrogate pair")
    except _Refused as error:
        raise BadParameter(f"{what} cannot be read: {error}.") from None
    except RecursionError:
        raise BadParameter(f"{what} cannot be read: values are nested too deep.") from None
    except ValueError:
        raise BadParameter(f"{what} cannot be read: it is not JSON.") from None
    return value


def _constant(name: str) -> object:
    raise _Refused(f"{name} is not a number here")


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise _Refused("a number is too large")
    return number


def _int(digits: str) -> int:
    if len(digits.removeprefix("-")) > _DIGITS_MAX:
        raise _Refused("a number is too large")
    return int(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Refused("a name is there twice in one object")
    return found


def _inner(values: list[Any]) -> list[Any]:
    return [
        inner
        for each in values
        if isinstance(each, (dict, list))
        for inner in (each.values() if isinstance(each, dict) else each)
    ]


def _deeper_than(value: Any, limit: int) -> bool:
    """Whether lists and objects are nested deeper than ``limit``. It does not recurse."""
    level = [value]
    for _ in range(limit):
        level = _inner(level)
        if not level:
            return False
    return True


def _has_half(value: Any) -> bool:
    """Whether any string, including names, holds a lone surrogate. ``value`` must not be deep."""
    level = [value]
    while level:
        texts = [each for each in level if isinstance(each, str)]
        texts += [name for each in level if isinstance(each, dict) for name in each]
        if any("\ud800" <= letter <= "\udfff" for text in texts for letter in text):
            return True
        level = _inner(level)
    return False
