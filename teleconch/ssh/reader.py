"""Reads the fields of an SSH message (RFC 4251 section 5)."""

from __future__ import annotations

from teleconch import codec
from teleconch.ssh.problems import ProtocolProblem


class Reader(codec.Reader):
    """Reads a message from front to back; one that does not fit raises :class:`ProtocolProblem`, which ends the
    connection."""

    __slots__ = ()

    problem = ProtocolProblem
