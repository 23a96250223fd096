"""Arguments and results of the auth API as JSON, according to the annotations in ``interface.py``.

Types are strict (a number is not a string, a string is not a list). An answer may hold fields that are unknown here,
since the auth server may be newer. A request may not: a restriction that is not understood must not be dropped.
"""

from __future__ import annotations

import inspect
import json
import math
import typing
from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Final, TypeVar

from attrs import NOTHING, Attribute, fields, frozen, has, resolve_types
from cattrs import Converter

from teleconch.api.interface import AuthAPI, Receiver
from teleconch.errors import BadParameter, LimitExceeded, TeleconchError
from teleconch.resources.kind import KINDS, Change, Kind
from teleconch.resources.secret import Secret
from teleconch.resources.strict_json import read_json

T = TypeVar("T")

REQUEST_MAX: Final = 64 * 1024  # bytes of one request's arguments
ANSWER_MAX: Final = 16 * 1024 * 1024  # bytes of one answer
CHUNK: Final = 256 * 1024  # bytes of one string on the wire; Perspective Broker refuses more than 640 KiB


@frozen
class Method:
    """One method of the API. ``parameters`` maps names to types. A method that ``streams`` takes a receiver after
    them."""

    name: str
    noun: type
    parameters: tuple[tuple[str, Any], ...]
    result: Any
    streams: bool = False


def _origin(kind: Any) -> Any:
    return typing.get_origin(kind)


def _method(noun: type, name: str, function: Callable[..., object]) -> Method:
    hints = typing.get_type_hints(function)
    result = hints.pop("return")
    parameters = tuple((key, hints[key]) for key in inspect.signature(function).parameters if key != "self")
    streams = bool(parameters) and _origin(parameters[-1][1]) is Receiver
    return Method(name, noun, parameters[:-1] if streams else parameters, result, streams)


def methods_in(noun: type) -> dict[str, Method]:
    """The methods of a noun, or of a protocol that combines several, by name."""
    return {
        name: _method(each, name, function)
        for each in noun.__mro__
        for name, function in vars(each).items()
        if inspect.isfunction(function) and not name.startswith("_")
    }


METHODS: Final[Mapping[str, Method]] = methods_in(AuthAPI)


class _Wrong(ValueError):
    """A value of the wrong type or shape. The message never quotes the value, which may be a secret."""


def _text(value: object, _: type) -> str:
    if type(value) is not str:
        raise _Wrong("a string is expected")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _Wrong("a string holds half of a surrogate pair") from None
    return value


def _number(value: object, _: type) -> float:
    if type(value) not in (int, float):
        raise _Wrong("a number is expected")
    try:
        number = float(value)  # type: ignore[arg-type]
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _Wrong("a finite number is expected")
    return number


def _kind(value: object, _: Any) -> Kind[Any]:
    kind = KINDS.get(_text(value, str))
    if kind is None:
        raise _Wrong("a kind of resource that is known here is expected")
    return kind


def _exactly(kind: type, name: str) -> Callable[[object, type], Any]:
    def take(value: object, _: type) -> Any:
        if type(value) is not kind:
            raise _Wrong(f"{name} is expected")
        return value

    return take


def _optional(kind: Any) -> Any:
    """The type in ``T | None``; ``None`` for any other annotation."""
    if _origin(kind) not in (typing.Union, UnionType):
        return None
    rest = [each for each in typing.get_args(kind) if each is not NoneType]
    return rest[0] if len(rest) == 1 else None


def _values(converter: Converter, strict: bool) -> Callable[[Any], Callable[[object, Any], Any]]:
    """Hooks for attrs classes: each field is read by its own type; missing and unknown fields are named in the
    error."""

    def hook(kind: Any) -> Callable[[object, Any], Any]:
        resolve_types(kind)
        known: dict[str, Attribute[Any]] = {each.name: each for each in fields(kind)}

        def take(value: object, _: Any) -> Any:
            if type(value) is not dict:
                raise _Wrong(f"an object with the fields of {kind.__name__} is expected")
            if strict and not value.keys() <= known.keys():
                raise _Wrong(f"{kind.__name__} has a field that is not known here")
            given = {}
            for name, each in known.items():
                if name in value:
                    given[name] = _field(converter, name, value[name], each.type)
                elif each.default is NOTHING:
                    raise _Wrong(f"{kind.__name__} lacks the field {name}")
            return kind(**given)

        return take

    return hook


def _field(converter: Converter, name: str, value: object, kind: Any) -> Any:
    try:
        return converter.structure(value, kind)
    except _Wrong as error:
        raise _Wrong(f"{name}: {error}") from None


def _converter(strict: bool) -> Converter:
    converter = Converter(detailed_validation=False)

    def sequence(kind: Any) -> Callable[[object, Any], Any]:
        inner = typing.get_args(kind)[0]

        def take(value: object, _: Any) -> Any:
            if type(value) is not list:
                raise _Wrong("a list is expected")
            return tuple(converter.structure(each, inner) for each in value)

        return take

    def mapping(kind: Any) -> Callable[[object, Any], Any]:
        _, inner = typing.get_args(kind)

        def take(value: object, _: Any) -> Any:
            if type(value) is not dict:
                raise _Wrong("an object is expected")
            return {_text(key, str): converter.structure(each, inner) for key, each in value.items()}

        return take

    def optional(kind: Any) -> Callable[[object, Any], Any]:
        inner = _optional(kind)
        return lambda value, _: None if value is None else converter.structure(value, inner)

    def literal(kind: Any) -> Callable[[object, Any], Any]:
        allowed = typing.get_args(kind)

        def take(value: object, _: Any) -> Any:
            if type(value) is not str or value not in allowed:
                raise _Wrong(f"one of {', '.join(allowed)} is expected")
            return value

        return take

    converter.register_structure_hook_factory(has, _values(converter, strict))
    converter.register_structure_hook_factory(lambda kind: _origin(kind) is tuple, sequence)
    converter.register_structure_hook_factory(lambda kind: _origin(kind) is Mapping, mapping)
    converter.register_structure_hook_factory(lambda kind: _optional(kind) is not None, optional)
    converter.register_structure_hook_factory(lambda kind: _origin(kind) is typing.Literal, literal)
    converter.register_structure_hook_func(lambda kind: _origin(kind) is Kind, _kind)
    converter.register_unstructure_hook(Kind, lambda kind: kind.name)
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(int, _exactly(int, "a whole number"))
    converter.register_structure_hook(bool, _exactly(bool, "true or false"))
    converter.register_structure_hook(NoneType, _exactly(NoneType, "nothing"))
    converter.register_structure_hook(Secret, lambda value, _: Secret(_text(value, str)))
    converter.register_unstructure_hook(Secret, lambda secret: secret.reveal())
    converter.register_unstructure_hook(frozenset, sorted)
    return converter


_REQUEST = _converter(strict=True)
_ANSWER = _converter(strict=False)


def _dump(value: object, limit: int, what: str) -> bytes:
    try:
        data = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        # Half a surrogate pair (from a command line that is not UTF-8), or a number that is not finite.
        raise BadParameter(f"{what} holds text that is not UTF-8, or a number that is not finite.") from None
    if len(data) > limit:
        raise LimitExceeded(f"{what} is too large: {len(data)} bytes, at most {limit} are sent.")
    return data


def _structure(converter: Converter, value: object, kind: Any, what: str) -> Any:
    try:
        return converter.structure(value, kind)
    except TeleconchError as error:  # raised by the value's own check
        raise BadParameter(str(error)) from None
    except _Wrong as error:
        raise BadParameter(f"{what} is not usable: {error}.") from None


def encode_arguments(method: Method, arguments: Sequence[object]) -> bytes:
    """The arguments in order, as a JSON list."""
    assert len(arguments) == len(method.parameters), method.name
    values = [_REQUEST.unstructure(each) for each in arguments]
    return _dump(values, REQUEST_MAX, f"The request {method.name}")


def decode_arguments(method: Method, data: bytes) -> tuple[Any, ...]:
    """Decode what :func:`encode_arguments` made. BadParameter, whose message does not contain the values."""
    if len(data) > REQUEST_MAX:
        raise BadParameter(f"The request {method.name} is too large: at most {REQUEST_MAX} bytes are taken.")
    values = read_json(data, f"The request {method.name}")
    if type(values) is not list or len(values) != len(method.parameters):
        raise BadParameter(f"{method.name} takes {len(method.parameters)} arguments.")
    return tuple(
        _structure(_REQUEST, value, kind, f"{name} of {method.name}")
        for value, (name, kind) in zip(values, method.parameters, strict=True)
    )


def encode_result(method: Method, value: object) -> tuple[bytes, ...]:
    """A result as one or more chunks of JSON. LimitExceeded."""
    data = _dump(_ANSWER.unstructure(value), ANSWER_MAX, f"The answer to {method.name}")
    return tuple(data[at : at + CHUNK] for at in range(0, len(data), CHUNK))


def decode_result(method: Method, chunks: Sequence[bytes]) -> Any:
    """Decode what :func:`encode_result` made. BadParameter."""
    what = f"The answer to {method.name}"
    return _structure(_ANSWER, read_json(b"".join(chunks), what), method.result, what)


def encode_changes(changes: Sequence[Change[Any]]) -> bytes:
    """Changes of one kind as JSON: pairs of key and value."""
    return _dump([(each.key, _ANSWER.unstructure(each.value)) for each in changes], ANSWER_MAX, "A list of changes")


def decode_changes(kind: Kind[T], data: bytes) -> tuple[Change[T], ...]:
    """Decode what :func:`encode_changes` made. BadParameter."""
    what = f"A list of changes of {kind.name}"
    pairs = read_json(data, what)
    if type(pairs) is not list or not all(type(pair) is list and len(pair) == 2 for pair in pairs):
        raise BadParameter(f"{what} is not usable: pairs of key and value are expected.")
    return tuple(Change(_structure(_ANSWER, key, str, what), _value(kind, value, what)) for key, value in pairs)


def _value(kind: Kind[T], value: object, what: str) -> T | None:
    found: T | None = None if value is None else _structure(_ANSWER, value, kind.values, what)
    return found


def encode_kept(kind: Kind[T], schema: int, values: Mapping[str, T]) -> bytes:
    """All values of one kind as JSON, for a file."""
    kept = {key: _ANSWER.unstructure(value) for key, value in values.items()}
    return json.dumps({"schema": schema, "kind": kind.name, "values": kept}).encode()


def decode_kept(kind: Kind[T], schema: int, data: bytes) -> dict[str, T]:
    """Decode what :func:`encode_kept` made for the same kind and schema. BadParameter."""
    what = f"What was kept of {kind.name}"
    kept = read_json(data, what)
    if type(kept) is not dict or (kept.get("schema"), kept.get("kind")) != (schema, kind.name):
        raise BadParameter(f"{what} is not of schema {schema}.")
    values = kept.get("values")
    if type(values) is not dict:
        raise BadParameter(f"{what} has no values.")
    return {key: _structure(_ANSWER, value, kind.values, what) for key, value in values.items()}


def encode_value(value: object) -> bytes:
    """One value of the API as JSON, for a file."""
    return json.dumps(_ANSWER.unstructure(value), indent=1).encode()


def decode_value(kind: Any, data: bytes) -> Any:
    """Decode what :func:`encode_value` made. BadParameter."""
    return _structure(_ANSWER, read_json(data, kind.__name__), kind, kind.__name__)
