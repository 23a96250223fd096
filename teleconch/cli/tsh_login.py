"""``tsh login``, ``logout`` and ``status``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from teleconch.cli import boundary
from teleconch.cli.tables import format_option, write_document
from teleconch.cli.tsh_params import UserCommand, given, known_profile, parse_ttl, pin_flag, profiles, proxy_flag
from teleconch.client.address import ProxyAddress
from teleconch.client.agent import agent_path, offer_key
from teleconch.client.login import Login
from teleconch.client.login import login as log_in
from teleconch.client.login import logout as log_out
from teleconch.client.profile import Profile, Profiles
from teleconch.client.prompts import ask_secret, ask_text
from teleconch.client.standing import os_login
from teleconch.client.status import LoginStatus, status_of
from teleconch.errors import AlreadyExists, BadParameter, NotFound


@click.command(cls=UserCommand)
@click.argument("cluster_name", metavar="[CLUSTER]", required=False)
@click.option("-o", "--out", metavar="FILE", help="Write the identity into FILE, and nothing into ~/.tsh.")
@click.option("--format", "file_format", type=click.Choice(("file", "openssh")), default="file", show_default=True,
              help="What --out writes: one file for `tsh -i`, or FILE and FILE-cert.pub for OpenSSH.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Let --out replace files.")
@click.option("--force", is_flag=True, help="Log in again although the last login is still valid.")
@click.option("--no-agent", is_flag=True, help="Do not put the key into the ssh-agent.")
def login(
    cluster_name: str | None, out: str | None, file_format: str, overwrite: bool, force: bool, no_agent: bool
) -> int | None:
    """Log in to a cluster: get a certificate that holds for some hours.

    Asks for the password and, where the cluster wants one, a code from your authenticator. Where standard input is
    no terminal, they are read from it, a line each.
    """
    from teleconch.client.trust import Trust
    from teleconch.client.web import WebClient

    flags = given()
    if flags.auth not in (None, "local"):
        raise BadParameter(f"--auth={flags.auth} is not available yet: leave it out to log in with your password.")
    if flags.identity is not None:
        raise BadParameter("An identity file needs no login: use it with `tsh -i FILE ssh LOGIN@NODE`.")
    store = profiles()
    proxy = proxy_flag()
    known = known_profile(store, proxy)
    if proxy is None and known is None:
        raise NotFound("Say where to log in: `tsh login --proxy=HOST` with the host of your cluster's proxy.")
    user = flags.text("user") or (known.user if known else "") or os_login()
    ttl = parse_ttl(flags.ttl) if flags.ttl else None
    pin = pin_flag()
    _check_cluster(cluster_name or flags.text("cluster"), known)
    if known and not (force or out or ttl or pin or flags.insecure) and user == known.user and _holds(store, known):
        store.select(known)
        _show(store, known)
        click.echo("You are logged in already; to log in again, use --force.", err=True)
        return None
    if out:
        _may_write(Path(out), file_format, overwrite)
    else:
        store.check_writable()
    if flags.insecure:
        boundary.say_warning("With --insecure nobody checks who the proxy is: it learns your password, whoever it is.")
    address = proxy or ProxyAddress(known.host, known.web_port)  # type: ignore[union-attr]
    if known is not None and address.web_port is None:
        address = ProxyAddress(address.host, known.web_port, address.ssh_port)
    authorities = tuple(cert for each in store.authorities(known) for cert in each.tls_certs) if known else ()
    done = log_in(
        WebClient(address, Trust(pin, authorities, bool(flags.insecure))),
        user,
        ttl,
        lambda: ask_secret(f"Enter password for Teleport user {user}"),
        lambda: ask_text("Enter your OTP token"),
    )
    _check_clock(done)
    if out:
        _write_out(Path(out), file_format, done)
        return None
    agent = agent_path()
    if known is not None:
        log_out(store, known, agent)
    store.save(done.profile, done.identity, done.public_key)
    if agent is not None and not no_agent:
        _tell_agent(agent, done)
    _show(store, done.profile)
    return None


def _check_cluster(cluster: str | None, known: Profile | None) -> None:
    if cluster and known and cluster != known.cluster:
        raise BadParameter(
            f"{known.host} serves the cluster {known.cluster}, not {cluster}: log in to that cluster's own proxy."
        )


def _holds(store: Profiles, profile: Profile) -> bool:
    until = status_of(store, profile, True).valid_before
    return until is not None and until > time.time()


def _may_write(path: Path, file_format: str, overwrite: bool) -> None:
    paths = [path] if file_format == "file" else [path, path.with_name(path.name + "-cert.pub")]
    for each in paths:
        if each.exists() and not overwrite:
            raise AlreadyExists(f"{each} exists already: give another name, or --overwrite.")


def _write_out(path: Path, file_format: str, done: Login) -> None:
    from teleconch.client.identity import write_identity, write_openssh

    if file_format == "file":
        write_identity(path, done.identity)
        click.echo(f"The identity is in {path}: tsh -i {path} --proxy={done.profile.proxy_option} ssh LOGIN@NODE")
    else:
        write_openssh(path, done.identity.ssh_private_key, done.identity.ssh_cert)
        click.echo(f"The key is in {path}, its certificate in {path}-cert.pub: ssh -i {path} ...")


def _check_clock(done: Login) -> None:
    now = time.time()
    if now < done.valid_after or now >= done.valid_before:
        boundary.say_warning(
            "The clock of this machine differs from the cluster's: by this clock the new certificate is not valid."
            " Set the clock (NTP), or nothing will let you in."
        )


def _tell_agent(agent: str, done: Login) -> None:
    identity, left = done.identity, done.valid_before - time.time()
    problem = offer_key(agent, done.profile, identity.ssh_private_key, identity.ssh_cert, left)
    if problem:
        boundary.say_warning(problem)


def _show(store: Profiles, profile: Profile) -> None:
    for line in status_of(store, profile, True).lines(time.time()):
        click.echo(line)
    click.echo()


@click.command(cls=UserCommand)
def logout() -> None:
    """Forget the keys of one proxy (--proxy), or of all."""
    store = profiles()
    proxy = proxy_flag()
    found = store.all() if proxy is None else [store.find(proxy)]
    gone = [profile for profile in found if log_out(store, profile, agent_path())]
    if not gone:
        click.echo("You were not logged in.")
    for profile in gone:
        click.echo(f"Logged out {profile.user} from {profile.proxy_option}.")


@click.command(cls=UserCommand)
@format_option()
def status(output_format: str) -> int:
    """Show where you are logged in, as whom, and until when.

    The exit status is 1 if the current login does not hold any more.
    """
    store = profiles()
    current = store.find(proxy_flag()) if proxy_flag() else store.current()
    found = store.all()
    if not found:
        click.echo("Not logged in: type `tsh login --proxy=HOST`.", err=True)
        return 1
    now = time.time()
    first = [profile for profile in found if current is not None and profile.name == current.name]
    rest = [profile for profile in found if profile not in first]
    states = [status_of(store, profile, profile in first) for profile in (*first, *rest)]
    if output_format != "text":
        write_document([_document(state) for state in states], output_format)
    else:
        for state in states:
            click.echo("\n".join(state.lines(now)) + "\n")
    sys.stdout.flush()
    return 0 if states[0].current and (states[0].valid_before or 0) > now else 1


def _document(state: LoginStatus) -> dict[str, object]:
    from teleconch.resources.times import rfc3339

    return {
        "profile_url": f"https://{state.profile.web_proxy_addr}",
        "ssh_proxy_addr": state.profile.ssh_proxy_addr,
        "user": state.profile.user,
        "cluster": state.profile.cluster,
        "active": state.current,
        "roles": list(state.roles),
        "logins": list(state.logins),
        "extensions": list(state.extensions),
        "valid_until": None if state.valid_before is None else rfc3339(state.valid_before),
    }
