"""What ``tctl auth sign`` does: makes keys, has the auth server sign them, and writes files. Private keys stay here."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import click

from teleconch.cli.tctl_admin import call, load_config
from teleconch.errors import AlreadyExists, BadParameter


def sign_user(name: str, out: str, file_format: str, ttl: float, overwrite: bool) -> None:
    """Write certificates for a user, as an identity file or for OpenSSH."""
    from teleconch.ca.keys import new_ssh_key, new_tls_key
    from teleconch.cli.tctl_where import NO_PROXY, ssh_address, web_address
    from teleconch.client.identity import Identity, write_identity, write_openssh
    from teleconch.resources.times import utc_text

    paths = _files(out, file_format)
    _may_write(paths, overwrite)
    ssh_private, ssh_public = new_ssh_key()
    tls_private, tls_public = new_tls_key()
    signed = call(lambda api: api.sign_user(name, ssh_public, tls_public, ttl))
    if file_format == "file":
        write_identity(out, Identity(ssh_private, signed.ssh_cert, tls_private, signed.tls_cert, signed.authorities))
        use = f"tsh -i {out} --proxy={web_address(load_config()) or NO_PROXY} ssh LOGIN@NODE"
    else:
        write_openssh(out, ssh_private, signed.ssh_cert)
        host, _, port = ssh_address(load_config()).rpartition(":")
        # Not `ssh -i KEY -J PROXY`: ssh would not use KEY for the proxy.
        way = f"ssh -i {out} -p {port} LOGIN@{host.strip('[]')} -s 'proxy:%h:%p'"
        use = f'ssh -i {out} -o ProxyCommand="{way}" LOGIN@NODE'
    _tell(paths, f"user {signed.user} (logins {', '.join(signed.logins)})", utc_text(signed.valid_before))
    click.echo(f"\nUse it:\n\n    {use}")
    if file_format == "openssh":
        click.echo("\nFor ssh to know the hosts, once: tctl auth export --type=host >> ~/.ssh/known_hosts")


def sign_host(names: tuple[str, ...], out: str, ttl: float, overwrite: bool) -> None:
    """Write a host certificate and its key for an OpenSSH server."""
    from teleconch.ca.keys import new_ssh_key, new_tls_key, public_blob
    from teleconch.ca.ssh import certificate_summary
    from teleconch.client.identity import write_openssh
    from teleconch.resources.times import utc_text

    paths = _files(out, "openssh")
    _may_write(paths, overwrite)
    ssh_private, ssh_public = new_ssh_key()
    _, tls_public = new_tls_key()
    signed = call(lambda api: api.sign_host(names, ssh_public, tls_public, ttl))
    write_openssh(out, ssh_private, signed.ssh_cert)
    summary = certificate_summary(public_blob(signed.ssh_cert))
    _tell(paths, f"host {', '.join(summary.principals)}", utc_text(summary.valid_before))
    key, cert = (path.absolute() for path in paths)
    click.echo("\nOn that host, put these files in /etc/ssh, name them in /etc/ssh/sshd_config and restart sshd:\n")
    click.echo(f"    HostKey /etc/ssh/{key.name}\n    HostCertificate /etc/ssh/{cert.name}")


def _files(out: str, file_format: str) -> list[Path]:
    path = Path(out)
    if not path.name:
        raise BadParameter(f"--out={out} is not the name of a file.")
    return [path] if file_format == "file" else [path, path.with_name(path.name + "-cert.pub")]


def _may_write(paths: list[Path], overwrite: bool) -> None:
    """Check before anything is signed. BadParameter, AlreadyExists; click.Abort if the user says no."""
    folder = paths[0].parent
    if not folder.is_dir():
        raise BadParameter(f"There is no directory {folder}; make it first.")
    there = []
    for path in paths:
        try:
            mode = os.stat(path).st_mode
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(mode):
            raise BadParameter(f"{path} is not an ordinary file; give --out another name.")
        there.append(str(path))
    if not there or overwrite:
        return
    verb = "exist" if len(there) > 1 else "exists"
    if not (os.isatty(0) and os.isatty(2)):
        raise AlreadyExists(f"{' and '.join(there)} {verb} already: give --overwrite, or another name to --out.")
    click.confirm(f"{' and '.join(there)} {verb} already. Replace?", abort=True, err=True)


def _tell(paths: list[Path], whom: str, end: str) -> None:
    click.echo(f"The credentials of {whom} have been written to {' and '.join(map(str, paths))}.")
    click.echo(f"They are valid until {end}.")
