"""``tctl status``: the cluster, its authorities, and whether the clocks agree."""

from __future__ import annotations

import click

from teleconch.cli.tables import format_option, write_document, write_pairs
from teleconch.cli.tctl_params import AdminCommand
from teleconch.resources.login import ClusterStatus

_CLOCK_TOLERANCE = 5  # seconds that two clocks may differ without being mentioned


@click.command(cls=AdminCommand, short_help="Show the cluster, its CAs and the CA pin.")
@format_option()
def status(output_format: str) -> None:
    """Show the cluster's name, the state of its CAs, and the CA pin that new hosts need."""
    import time

    from teleconch.cli.tctl_admin import call
    from teleconch.resources.times import rfc3339

    cluster = call(lambda api: api.status())
    ahead = cluster.time - time.time()
    if output_format != "text":
        write_document(
            {
                "cluster": cluster.cluster,
                "version": cluster.version,
                "second_factor": cluster.second_factor,
                "authorities": [
                    {"type": each.type, "rotated": None if each.rotated is None else rfc3339(each.rotated)}
                    for each in cluster.authorities
                ],
                "ca_pins": list(cluster.ca_pins),
                "time": rfc3339(cluster.time),
            },
            output_format,
        )
        return
    pairs = [
        ("Cluster", cluster.cluster),
        ("Version", cluster.version),
        ("User CA", _rotated(cluster, "user")),
        ("Host CA", _rotated(cluster, "host")),
        ("CA pin", "\n".join(cluster.ca_pins)),
    ]
    if abs(ahead) > _CLOCK_TOLERANCE:
        pairs.append(("Clock", clock_text(ahead)))
    write_pairs(pairs)


def clock_text(ahead: float) -> str:
    """A sentence about an auth server whose clock is ``ahead`` seconds (negative: behind) of this one."""
    from teleconch.resources.times import duration_text

    relation = "ahead of" if ahead > 0 else "behind"
    return (
        f"the auth server's is {duration_text(abs(ahead))} {relation} this machine's: set both (e.g. with chrony),"
        " or certificates and one-time codes will be refused"
    )


def _rotated(cluster: ClusterStatus, kind: str) -> str:
    from teleconch.resources.times import utc_text

    times = [each.rotated for each in cluster.authorities if each.type == kind and each.rotated is not None]
    return f"rotated {utc_text(max(times))}" if times else "never updated"
