"""The channel at the proxy that leads to a node, with the connection to the node inside it."""

from __future__ import annotations

from typing import Final

from teleconch.client.link import ChannelUser, Link

UNSENT_MAX: Final = 256 * 1024  # bytes on their way to the server; above this, no input is read


class Way(ChannelUser):
    """The user of a channel at the proxy: what comes in is for the ``inner`` link, and what that link sends goes out.

    ``refusal`` is the proxy's sentence if it does not lead there.
    """

    def __init__(self, inner: Link) -> None:
        self.refusal = ""
        self.over = False
        self._inner = inner
        self._outer: Link | None = None

    @property
    def open(self) -> bool:
        """Whether it leads to the node."""
        return self._outer is not None

    @property
    def has_room(self) -> bool:
        """Whether more input may be read: what was read before is on its way."""
        return self._inner.unsent + (self._outer.unsent if self._outer is not None else 0) < UNSENT_MAX

    def pass_on(self) -> None:
        """Send what the inner link has to send."""
        if self._outer is not None:
            self._outer.write(self._inner.take())

    def opened(self, link: Link) -> None:
        self._outer = link
        self.pass_on()

    def refused(self, sentence: str) -> None:
        self.refusal = sentence or "The proxy does not lead to this node."
        self.over = True

    def data(self, data: bytes) -> None:
        assert self._outer is not None
        self._inner.feed(data)
        self._outer.credit(len(data))
        self.pass_on()

    def error_data(self, data: bytes) -> None:
        assert self._outer is not None
        self._outer.credit(len(data))

    def eof(self) -> None:
        self._inner.lost()

    def closed(self) -> None:
        self.over = True
        self._inner.lost()
