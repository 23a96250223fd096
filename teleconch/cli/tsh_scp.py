"""``tsh scp``: copies to, from and between nodes."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from teleconch.cli import boundary
from teleconch.cli.tsh_flags import WrongUsage
from teleconch.cli.tsh_ls import standing as standing_of_flags
from teleconch.cli.tsh_options import apply_options
from teleconch.cli.tsh_params import UserCommand, given
from teleconch.client.standing import choose_login
from teleconch.errors import BadParameter, ConnectionProblem, quoted

if TYPE_CHECKING:
    from teleconch.client.copy.copying import Location
    from teleconch.client.copy.tree import Tree
    from teleconch.client.reach import ProxyConnection


@click.command("scp", cls=UserCommand)
@click.argument("paths", nargs=-1, required=True, metavar="SOURCE... TARGET", type=click.Path(path_type=bytes))
@click.option("-r", "recursive", is_flag=True, help="Copy directories and everything in them.")
@click.option("-p", "preserve", is_flag=True, help="Keep times and modes.")
@click.option("-P", "--port", type=click.IntRange(1, 65535), help="SSH port of the node.")
@click.option("-q", "quiet", is_flag=True, help="Show no progress.")
@click.option("-o", "options", multiple=True, metavar="NAME=VALUE", help="An option of OpenSSH's client.")
@click.option("-v", "verbose", is_flag=True, hidden=True)
@click.option("-3", "-4", "-6", "-B", "-C", "-O", "-T", "nothing", is_flag=True, hidden=True)  # they change nothing
def scp(
    paths: tuple[bytes, ...],
    recursive: bool,
    preserve: bool,
    port: int | None,
    quiet: bool,
    options: tuple[str, ...],
    verbose: bool,
    nothing: bool,
) -> int:
    """Copy files to a node, from a node, or between nodes.

    A path on a node is [LOGIN@]NODE:PATH; it may have wildcards, and begins in the login's home. The exit status is 1
    if anything was not copied.
    """
    from teleconch.cli import tsh_reactor

    if len(paths) < 2:
        raise BadParameter("Say what to copy and where to: tsh scp SOURCE... [LOGIN@]NODE:TARGET.")
    port = port or _apply(options, quiet)
    if verbose:
        click.get_current_context().ensure_object(boundary.Invocation).debug = True
    specs = [split_path(path) for path in paths]
    if not any(host for host, _ in specs):
        raise BadParameter("None of these paths is on a node: write one as [LOGIN@]NODE:PATH.")
    meter = _meter(quiet)
    try:
        return tsh_reactor.run(lambda reactor: _copy(reactor, specs, port or 0, recursive, preserve, meter))
    except tsh_reactor.Interrupted as interrupted:
        return 128 + interrupted.number
    finally:
        meter.stop()


def _apply(options: tuple[str, ...], quiet: bool) -> int:
    """Apply what ``-o`` says. Returns the port, 0 if there is none."""
    flags = given()
    flags.values["option"] = list(options)
    try:
        warnings = apply_options(flags)
        if flags.port and not (flags.port.isdecimal() and 0 < int(flags.port) < 65536):
            raise WrongUsage(f"-o Port={flags.port}: ports go from 1 to 65535.")
    except WrongUsage as error:
        raise click.UsageError(str(error)) from None
    for warning in () if quiet or flags.quiet else warnings:
        boundary.say_warning(warning)
    return int(flags.port or 0)


def _meter(quiet: bool) -> Any:
    if quiet or not sys.stdout.isatty():
        return Silence()
    from teleconch.cli.tsh_progress import Bar

    return Bar()


def split_path(path: bytes) -> tuple[str, bytes]:
    """Split into ``[LOGIN@]NODE`` (empty: this machine) and the path there. A colon after a slash belongs to a local
    name."""
    if path.startswith(b"[") or b"@[" in path.partition(b":")[0]:
        before, bracket, after = path.partition(b"]:")
        if bracket and b"/" not in before:
            return os.fsdecode(before.replace(b"[", b"", 1)), after or b"."
    host, colon, rest = path.partition(b":")
    if not colon or not host or b"/" in host:
        return "", path
    return os.fsdecode(host), rest or b"."


async def _copy(
    reactor: Any, specs: list[tuple[str, bytes]], port: int, recursive: bool, preserve: bool, meter: Any
) -> int:
    from teleconch.client.copy.copying import Copying, Location
    from teleconch.client.copy.local import LocalTree
    from teleconch.client.copy.tree import CopyProblem
    from teleconch.client.reach import ProxyConnection

    standing, insecure = standing_of_flags(), bool(given().insecure)
    trees: dict[str, Tree] = {"": LocalTree()}
    asked = [host.rpartition("@")[0] or given().text("login") for host, _ in specs if host]
    logins = [choose_login(standing.summary, login) for login in asked]
    proxy = await ProxyConnection.reach(reactor, standing, insecure, logins[0])
    copying = Copying(recursive, preserve, meter, meter.fail)
    try:
        ends: list[Location] = []
        for host, path in specs:
            if host not in trees:
                trees[host] = await _tree(proxy, host, port)
            ends.append(Location(trees[host], path, host))
        target = Location(ends[-1].tree, await ends[-1].tree.expand(ends[-1].path), ends[-1].node)
        try:
            await copying.run(ends[:-1], target)
        except CopyProblem as problem:
            copying.fail(str(problem))
    except ConnectionProblem as problem:
        copying.fail(str(problem))
    finally:
        proxy.close()
    return 1 if copying.failures else 0


async def _tree(proxy: ProxyConnection, host: str, port: int) -> Tree:
    from teleconch.client.copy.sftp import SftpTree

    login, _, node = host.rpartition("@")
    if not node or node.startswith("-"):
        raise BadParameter(f"{quoted(host)} is not [LOGIN@]NODE.")
    login = choose_login(proxy.standing.summary, login or given().text("login"))
    if "=" in node:
        from teleconch.client.cluster import node_with_label

        label = node
        node = await proxy.ask(lambda client: node_with_label(client, label))
    return await SftpTree.begin(await proxy.to_node(node, port, login), host)


class Silence:
    """Shows nothing."""

    def begin(self, name: str, size: int) -> None: ...

    def moved(self, count: int) -> None: ...

    def end(self) -> None: ...

    def fail(self, sentence: str) -> None:
        boundary.say_error(sentence)

    def stop(self) -> None: ...
