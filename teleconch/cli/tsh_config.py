"""``tsh config``: the OpenSSH client's configuration for the cluster."""

from __future__ import annotations

import click

from teleconch.cli.tsh_params import UserCommand, profiles, proxy_flag


@click.command(cls=UserCommand)
def config() -> None:
    """Print the configuration with which OpenSSH reaches the nodes.

    After `tsh config >> ~/.ssh/config`, `ssh LOGIN@NODE.CLUSTER` works, and with it scp, sftp, rsync and git. It stays
    right after further logins.
    """
    from teleconch.client.openssh_config import openssh_config

    store = profiles()
    profile = store.find(proxy_flag())
    store.ssh_key(profile)
    click.echo(openssh_config(profile, store.identity_path(profile), store.known_hosts_path(profile)), nl=False)
