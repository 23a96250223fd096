"""A value that does not show itself."""

from __future__ import annotations

from typing import final


@final
class Secret:
    """Text that must not be printed or logged. ``reveal()`` returns it; every other view shows ``<secret>``."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "<secret>"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        import hmac

        return isinstance(other, Secret) and hmac.compare_digest(self._text.encode(), other._text.encode())

    __hash__ = None  # type: ignore[assignment]  # a secret is no key

    def __reduce__(self) -> str:
        raise TypeError("a secret is not pickled")
