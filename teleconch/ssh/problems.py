"""What ends a connection or refuses a channel. The sentence is for the peer and the log; it holds no secret."""

from __future__ import annotations

from teleconch.ssh import messages


class SSHProblem(Exception):
    """The connection must end. ``reason`` is the disconnect code (RFC 4253 section 11.1)."""

    reason = messages.DISCONNECT_PROTOCOL_ERROR

    def __init__(self, sentence: str, reason: int | None = None) -> None:
        super().__init__(sentence)
        if reason is not None:
            self.reason = reason


class ProtocolProblem(SSHProblem):
    """The peer sent what the protocol does not allow here."""


class IntegrityProblem(SSHProblem):
    """A packet is not what the peer sent: it was changed, cut, repeated or left out on the way."""

    reason = messages.DISCONNECT_MAC_ERROR


class NegotiationProblem(SSHProblem):
    """The two sides have no algorithm in common, or the key exchange went wrong."""

    reason = messages.DISCONNECT_KEY_EXCHANGE_FAILED


class HostKeyProblem(SSHProblem):
    """The server's host key or certificate was not accepted."""

    reason = messages.DISCONNECT_HOST_KEY_NOT_VERIFIABLE


class ChannelRefused(Exception):
    """A channel is not opened. ``code`` as in RFC 4254 section 5.1; the sentence is shown to the peer's user."""

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(code, sentence)
        self.code = code
        self.sentence = sentence

    def __str__(self) -> str:
        return self.sentence


class ConnectionGone(Exception):
    """The connection ended before it was known whether a channel opens."""


class RequestRefused(Exception):
    """The peer answered a channel request or a global request with failure, or the channel closed first."""
