"""The user's ssh-agent: gets the key and certificate of a login, for as long as the certificate lives.

Source: draft-ietf-sshm-ssh-agent, and OpenSSH's PROTOCOL.agent for the certificate's form.
"""

from __future__ import annotations

import os
import socket

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from teleconch.ca.keys import public_blob
from teleconch.client.profile import Profile
from teleconch.codec import Reader, string, uint32
from teleconch.errors import ConnectionProblem
from teleconch.resources.secret import Secret

_SUCCESS = 6
_REMOVE_IDENTITY = 18
_ADD_ID_CONSTRAINED = 25
_CONSTRAIN_LIFETIME = b"\x01"
_ANSWER_MAX = 256 * 1024
_TIMEOUT = 5.0  # an agent that first asks its user for consent gets no key if that takes longer


def agent_path() -> str | None:
    """Where the agent listens, if there is one."""
    return os.environ.get("SSH_AUTH_SOCK") or None


def add_key(path: str, private_key: Secret, cert: str, comment: str, lifetime: int) -> bool:
    """Put a key with its certificate into the agent at ``path`` for ``lifetime`` seconds. Returns whether the agent
    took it.

    ConnectionProblem if the agent cannot be reached.
    """
    key = serialization.load_ssh_private_key(private_key.reveal().encode("ascii"), None)
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        return False
    seed = key.private_bytes_raw()
    public = key.public_key().public_bytes_raw()
    certificate = (
        string(b"ssh-ed25519-cert-v01@openssh.com")
        + string(public_blob(cert))
        + string(public)
        + string(seed + public)
        + string(comment.encode())
    )
    constraint = _CONSTRAIN_LIFETIME + uint32(max(1, lifetime))
    return _ask(path, bytes((_ADD_ID_CONSTRAINED,)) + certificate + constraint)


def offer_key(path: str, profile: Profile, private_key: Secret, cert: str, lifetime: float) -> str | None:
    """The same for a login, with the name that ``ssh-add -l`` shows. Returns None if the agent took it, else what to
    tell."""
    try:
        if add_key(path, private_key, cert, f"teleport:{profile.user}@{profile.cluster}", int(lifetime)):
            return None
    except ConnectionProblem as problem:
        return f"{problem} tsh works without it."
    return "The ssh-agent did not take the certificate; tsh works without it."


def remove_key(path: str, cert: str) -> bool:
    """Take a certificate and its key out of the agent. Returns whether it was there. ConnectionProblem."""
    return _ask(path, bytes((_REMOVE_IDENTITY,)) + string(public_blob(cert)))


def _ask(path: str, message: bytes) -> bool:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
            agent.settimeout(_TIMEOUT)
            agent.connect(path)
            agent.sendall(string(message))
            length = Reader(_read(agent, 4)).uint32()
            if not 0 < length <= _ANSWER_MAX:
                raise ConnectionProblem(f"The ssh-agent at {path} does not speak the agent protocol.")
            return _read(agent, length)[0] == _SUCCESS
    except OSError as error:
        raise ConnectionProblem(f"The ssh-agent at {path} does not answer: {error.strerror or error}.") from error


def _read(agent: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = agent.recv(count - len(data))
        if not more:
            raise ConnectionProblem("The ssh-agent closed the connection.")
        data += more
    return data
