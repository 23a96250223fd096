"""``@cert-authority`` lines of OpenSSH's known_hosts (sshd(8)): which keys sign the certificates of a cluster's hosts.

``@cert-authority PATTERNS TYPE BASE64 COMMENT``, where the comment of Teleport's lines is
``clustername=NAME&type=host``.
"""

from __future__ import annotations

from collections.abc import Iterable

from teleconch.resources.authority import TrustedAuthority

MARK = "@cert-authority"


def host_patterns(cluster: str, proxies: Iterable[str] = ()) -> str:
    """The names that a cluster's host authority vouches for, on any port: its nodes, and ``proxies`` by their host."""
    names = [f"*.{cluster}", *proxies]
    return ",".join(pattern for name in dict.fromkeys(names) for pattern in (name, f"[{name}]:*"))


def authority_lines(authority: TrustedAuthority, proxies: Iterable[str] = ()) -> list[str]:
    """One line for each of a host authority's keys (a rotation has two)."""
    patterns = host_patterns(authority.cluster, proxies)
    return [
        f"{MARK} {patterns} {' '.join(key.split()[:2])} clustername={authority.cluster}&type=host"
        for key in authority.ssh_public_keys
    ]


def parse_authorities(text: str, tls_certs: tuple[str, ...] = ()) -> tuple[TrustedAuthority, ...]:
    """The host authorities that the lines of ``text`` name, each with ``tls_certs``. Other lines are ignored."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) < 4 or words[0] != MARK:
            continue
        cluster = _cluster(words[1], words[4] if len(words) > 4 else "")
        if cluster:
            found.setdefault(cluster, []).append(f"{words[2]} {words[3]}")
    return tuple(
        TrustedAuthority(type="host", cluster=cluster, ssh_public_keys=tuple(keys), tls_certs=tls_certs)
        for cluster, keys in found.items()
    )


def _cluster(patterns: str, comment: str) -> str:
    fields = dict(pair.split("=", 1) for pair in comment.split("&") if "=" in pair)
    if fields.get("type", "host") != "host":
        return ""
    if "clustername" in fields:
        return fields["clustername"]
    first = patterns.split(",", 1)[0]
    return first[2:] if first.startswith("*.") else ""
