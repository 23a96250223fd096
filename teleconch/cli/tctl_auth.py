"""``tctl auth``: the cluster's authorities, and certificates that an administrator makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from teleconch import defaults
from teleconch.cli import boundary
from teleconch.cli.tctl_params import AdminGroup, CommaList, Duration
from teleconch.resources.authority import TrustedAuthority

if TYPE_CHECKING:
    from teleconch.api.interface import AuthAPI

_TTL_MAX = 10 * 365 * defaults.DAY  # Teleport's manual signs for 87600h


@click.group(cls=AdminGroup)
def auth() -> None:
    """The cluster's certificate authorities (CAs)."""


@auth.command()
@click.option("--type", "kind", type=click.Choice(["user", "host", "tls"]),
              help="user: for authorized_keys or TrustedUserCAKeys; host: for known_hosts; tls: the host CA in PEM."
                   "  [default: user and host]")  # fmt: skip
@click.option("--fingerprint", "wanted", metavar="SHA256:...", help="Only the key with this fingerprint (or CA pin).")
@click.option("--names", type=CommaList(), default=None, metavar="NAME[,NAME...]",
              help="With --type=host: further hosts that the CA may vouch for, such as your proxy.")  # fmt: skip
@boundary.without_effect("--compat", value="VERSION", why="every version reads the keys as they are printed")
@boundary.without_effect("--keys", why="private keys of the authorities do not leave the auth server")
def export(kind: str | None, wanted: str | None, names: tuple[str, ...] | None) -> None:
    """Print the public keys of the cluster's authorities.

    \b
    tctl auth export --type=host >> ~/.ssh/known_hosts
        ssh then knows every node of the cluster
    tctl auth export --type=user >> ~/.ssh/authorized_keys
        sshd then lets the cluster's certificates in
    tctl auth export --type=tls  >  ca.pem
        for programs that connect to the proxy's HTTPS
    """
    from teleconch.cli import tctl_export
    from teleconch.cli.tctl_admin import call
    from teleconch.errors import BadParameter, NotFound, quoted
    from teleconch.resources.names import is_host_principal

    for name in names or ():
        if not is_host_principal(name.replace("*", "a")):
            raise BadParameter(f"{quoted(name)} is not a host name, address or pattern like *.example.com.")

    async def ask(api: AuthAPI) -> tuple[tuple[TrustedAuthority, ...], list[str]]:
        found = await api.authorities()
        return found, await _dotted_nodes(api) if kind in (None, "host") else []

    authorities, dotted = call(ask)
    lines: list[str] = []
    there: list[str] = []
    for authority in sorted(authorities, key=lambda each: each.type, reverse=True):  # user first
        keys = _wanted(authority, kind, wanted, there)
        if not keys:
            continue
        if kind == "tls":
            lines += [key.strip() for key in keys]
        elif authority.type == "user":
            lines += tctl_export.authorized_keys_lines(authority, keys)
        else:
            all_names = [*_own_names(), *(name.lower() for name in names or ()), *dotted]
            lines += tctl_export.known_hosts_comment(authority.cluster, dotted)
            lines += tctl_export.known_hosts_lines(authority, keys, all_names)
    if not lines:
        raise NotFound(f"No authority has the fingerprint {wanted}. There are: {', '.join(there)}.")
    click.echo("\n".join(lines))


def _wanted(authority: TrustedAuthority, kind: str | None, wanted: str | None, there: list[str]) -> list[str]:
    """The authority's keys (for ``tls``, its certificates) that were asked for. Every fingerprint is added to
    ``there``."""
    from teleconch.ca.authority import ca_pin
    from teleconch.cli.tctl_export import fingerprint

    if authority.type not in {None: ("user", "host"), "tls": ("host",)}.get(kind, (kind,)):
        return []
    keys = authority.tls_certs if kind == "tls" else authority.ssh_public_keys
    prints = {key: ca_pin(key) if kind == "tls" else fingerprint(key) for key in keys}
    there += prints.values()
    return [key for key in keys if wanted is None or prints[key] == wanted.removesuffix("=")]


async def _dotted_nodes(api: AuthAPI) -> list[str]:
    """Node names with a dot. Nodes choose what they say about themselves, so nothing else of it is used."""
    from teleconch.api.pages import all_nodes
    from teleconch.cli import tctl_export

    return tctl_export.extra_names(status.node.nodename for status in await all_nodes(api))


def _own_names() -> list[str]:
    """The names and addresses of the proxy that runs with this configuration."""
    from teleconch.cli import tctl_export
    from teleconch.cli.tctl_admin import load_config

    config = load_config()
    if not config.proxy_service.enabled:
        return []
    names = [each.host for each in (*config.proxy_service.public_addr, *config.proxy_service.ssh_public_addr)]
    if config.teleport.advertise_ip is not None:
        names.append(config.teleport.advertise_ip.host)
    return tctl_export.extra_names(names)


@auth.command()
@click.option("--user", metavar="USER", help="Sign for this user of the cluster.")
@click.option("--host", "hosts", type=CommaList(), default=None, metavar="NAME[,NAME...]",
              help="Sign for an OpenSSH server that is reached by these names and addresses.")  # fmt: skip
@click.option("-o", "--out", metavar="FILE", help="Where to write. With --host, the first name if left out.")
@click.option("--format", "file_format", type=click.Choice(["file", "openssh"]),
              help="file: one file for `tsh -i FILE`; openssh: FILE and FILE-cert.pub."
                   "  [default: file with --user, openssh with --host]")  # fmt: skip
@click.option("--ttl", type=Duration(_TTL_MAX), metavar="DURATION",
              help="How long it is valid; at most 87600h.  [default: 12h with --user, 8760h with --host]")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace existing files without asking.")
@boundary.without_effect("--compat", value="FORMAT", why="OpenSSH 7.4 and later reads these certificates")
def sign(
    user: str | None,
    hosts: tuple[str, ...] | None,
    out: str | None,
    file_format: str | None,
    ttl: float | None,
    overwrite: bool,
) -> None:
    """Make keys here, have them signed, and write them to files that only their owner can read."""
    from teleconch.cli.tctl_sign import sign_host, sign_user

    if (user is None) == (hosts is None):
        raise click.UsageError("Give either --user=USER or --host=NAME.")
    if hosts is not None:
        if file_format == "file":
            raise click.UsageError("A host's certificate is for OpenSSH: leave --format out, or use --format=openssh.")
        sign_host(hosts, out or hosts[0], ttl or 365 * defaults.DAY, overwrite)
        return
    if out is None:
        raise click.UsageError("Say where to write it: --out=FILE.")
    assert user is not None
    sign_user(user, out, file_format or "file", ttl or defaults.USER_CERT_TTL, overwrite)
