"""What ``tctl auth export`` prints: the authorities in the forms that OpenSSH and TLS programs read. Pure."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence

from teleconch import defaults
from teleconch.ca.keys import public_blob
from teleconch.resources.authority import TrustedAuthority
from teleconch.resources.names import is_host_principal

_NO_DOT = "*,!*.*,!*:*"  # in known_hosts a name must match one pattern and no negated one


def fingerprint(key_line: str) -> str:
    """``SHA256:...`` of a public key line, as ``ssh-keygen -l`` prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(public_blob(key_line)).digest()).decode().rstrip("=")


def authorized_keys_lines(authority: TrustedAuthority, keys: Iterable[str]) -> list[str]:
    """For ``authorized_keys`` (sshd(8)): certificates that the user authority signed may log in."""
    return [f"cert-authority {_key(key)} clustername={authority.cluster}&type=user" for key in keys]


def known_hosts_lines(authority: TrustedAuthority, keys: Iterable[str], names: Sequence[str]) -> list[str]:
    """For ``known_hosts`` (sshd(8)): the hosts that the host authority may vouch for, narrower than just ``*``.

    Through a jump host, a node is reached by its bare name or UUID on port 22, so names without a dot match; they
    cannot belong to a public host. Other names match only on Teleport's own ports, or if they are in ``names``. ssh
    looks up a name on another port without the port as well.
    """
    keys = list(keys)
    cluster = authority.cluster
    patterns = [
        f"*.{cluster}",
        cluster,
        f"[*]:{defaults.NODE_PORT}",
        f"[*]:{defaults.PROXY_PORT}",
        "127.0.0.1",
        "::1",
        *names,
    ]
    first = ",".join(dict.fromkeys(patterns))
    comment = f"clustername={cluster}&type=host"
    lines = [f"@cert-authority {first} {_key(key)} {comment}" for key in keys]
    return lines + [f"@cert-authority {_NO_DOT} {_key(key)} {comment}" for key in keys]


def known_hosts_comment(cluster: str, dotted: Sequence[str] = ()) -> list[str]:
    """The comment above :func:`known_hosts_lines`. ``dotted`` are the node names among its ``names``."""
    nodes = f" and the present nodes {', '.join(dotted)};" if dotted else ""
    return [
        f"# Host authority of cluster {cluster}: append this to ~/.ssh/known_hosts (or /etc/ssh/ssh_known_hosts).",
        f"# It is trusted for *.{cluster}; any host on ports {defaults.NODE_PORT} and {defaults.PROXY_PORT};{nodes}",
        "# names without a dot, such as node names and UUIDs through `ssh -J LOGIN@PROXY:3023`. Not for other hosts.",
        "# Is your proxy on another port? Add its name: tctl auth export --type=host --names=proxy.example.com",
    ]


def extra_names(names: Iterable[str]) -> list[str]:
    """Those of ``names`` that no general pattern matches and that can be patterns: names with a dot, and addresses."""
    lower = (name.strip("[]").lower() for name in names)
    return sorted({name for name in lower if is_host_principal(name) and ("." in name or ":" in name)})


def _key(line: str) -> str:
    return " ".join(line.split()[:2])
