"""The identity file: one user's keys, certificates and trusted authorities in one file, for ``tsh -i``.

In this order (``tctl auth sign --format=file`` and ``tsh login --out`` write it)::

    -----BEGIN OPENSSH PRIVATE KEY-----         the SSH key
    ssh-ed25519-cert-v01@openssh.com AAAA...    its certificate, one line
    -----BEGIN PRIVATE KEY-----                 the TLS key (PKCS#8)
    -----BEGIN CERTIFICATE-----                 its certificate
    @cert-authority *.example.com,... AAAA...   the cluster's host authority: its SSH keys, one line each,
    -----BEGIN CERTIFICATE-----                 and its TLS certificates

``ssh -i`` of OpenSSH reads the first block as a private key too.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from teleconch.atomic import write_file
from teleconch.client.known_hosts import MARK, authority_lines, parse_authorities
from teleconch.errors import BadParameter
from teleconch.resources.authority import TrustedAuthority
from teleconch.resources.secret import Secret

_BLOCK = re.compile(r"-----BEGIN ([A-Z ]{1,40})-----\n(?:[A-Za-z0-9+/=]+\n)+-----END \1-----\n")
_CERT_TYPE = "-cert-v01@openssh.com"


class Identity(NamedTuple):
    """A user's keys and certificates, and ``authorities`` that sign the hosts of the cluster (type ``host``)."""

    ssh_private_key: Secret
    ssh_cert: str
    tls_private_key: Secret
    tls_cert: str
    authorities: tuple[TrustedAuthority, ...]


def format_identity(identity: Identity) -> str:
    """The text of an identity file. Holds private keys."""
    hosts = [authority for authority in identity.authorities if authority.type == "host"]
    parts = [
        identity.ssh_private_key.reveal(),
        " ".join(identity.ssh_cert.split()[:2]),
        identity.tls_private_key.reveal(),
        identity.tls_cert,
        *(line for authority in hosts for line in authority_lines(authority)),
        *(cert for authority in hosts for cert in authority.tls_certs),
    ]
    return "".join(part.strip() + "\n" for part in parts)


def parse_identity(text: str, source: str = "The identity file") -> Identity:
    """What :func:`format_identity` wrote. BadParameter, beginning with ``source``, for anything else."""
    text = text.replace("\r\n", "\n")
    if not text.endswith("\n"):
        text += "\n"
    blocks = [(match[1], match[0]) for match in _BLOCK.finditer(text)]
    certs = [line for line in text.splitlines() if line.split(" ", 1)[0].endswith(_CERT_TYPE)]
    ssh_keys = [block for kind, block in blocks if kind == "OPENSSH PRIVATE KEY"]
    tls_keys = [block for kind, block in blocks if kind == "PRIVATE KEY"]
    tls_certs = [block for kind, block in blocks if kind == "CERTIFICATE"]
    authorities = parse_authorities(
        "\n".join(line for line in text.splitlines() if line.startswith(MARK)), tuple(tls_certs[1:])
    )
    missing = [
        what
        for what, there in (
            ("an SSH private key", ssh_keys),
            ("an SSH certificate", certs),
            ("a TLS private key", tls_keys),
            ("a TLS certificate", tls_certs),
            ("a host authority", authorities),
        )
        if not there
    ]
    if missing:
        raise BadParameter(
            f"{source} lacks {missing[0]}; make a new one with `tctl auth sign --format=file` or `tsh login --out`."
        )
    return Identity(Secret(ssh_keys[0]), certs[0].strip(), Secret(tls_keys[0]), tls_certs[0], authorities)


def read_openssh(path: str | Path) -> tuple[Secret, str] | None:
    """OpenSSH's private key in ``path`` and the certificate line in ``path-cert.pub``, as :func:`write_openssh` writes
    them; None if the file holds anything else, or if there is no certificate beside it. OSError.
    """
    path = Path(path)
    text = path.read_bytes().decode("ascii", "replace").replace("\r\n", "\n").strip() + "\n"
    match = _BLOCK.fullmatch(text)
    if match is None or match[1] != "OPENSSH PRIVATE KEY":
        return None
    try:
        line = path.with_name(f"{path.name}-cert.pub").read_text("ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    if not line.split(" ", 1)[0].endswith(_CERT_TYPE):
        return None
    return Secret(text), " ".join(line.split()[:2])


def read_identity(path: str | Path) -> Identity:
    """The identity in the file ``path``. BadParameter if it is not one; OSError."""
    try:
        text = Path(path).read_text("ascii")
    except UnicodeDecodeError:
        raise BadParameter(f"{path} is not an identity file; make one with `tctl auth sign --format=file`.") from None
    return parse_identity(text, str(path))


def write_identity(path: str | Path, identity: Identity) -> None:
    """Write one identity file, readable by its owner only. OSError."""
    write_file(Path(path), format_identity(identity).encode("ascii"))


def write_openssh(path: str | Path, private_key: Secret, cert: str) -> None:
    """Write ``path`` and ``path-cert.pub`` for OpenSSH (``--format=openssh``). OSError."""
    path = Path(path)
    write_file(path, (private_key.reveal().strip() + "\n").encode("ascii"))
    write_file(path.with_name(path.name + "-cert.pub"), (cert.strip() + "\n").encode("ascii"), 0o644)
