"""Turns teleport.yaml into a :class:`Config`, or a :class:`ConfigError` with everything that is wrong in it.

``read_config`` reads a file and ``load_config`` a string; ``default_config`` is for a start with flags only.
Command-line flags (``flags.Flags``) override the file's values before the whole is checked.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping

import yaml
from attrs import evolve

from teleconch.config.document import SIZE_MAX, Findings, in_order, parse_document
from teleconch.config.flags import NO_FLAGS, Flags, apply_flags, roles_with
from teleconch.config.secrets import warn_if_public
from teleconch.config.section import Section
from teleconch.config.services import read_auth, read_proxy, read_ssh
from teleconch.config.teleport import read_teleport
from teleconch.config.unknown import report_unknown
from teleconch.config.values import Config
from teleconch.config.whole import check_whole
from teleconch.errors import BadParameter, ConfigError

DEFAULT_FILE = "/etc/teleport.yaml"


def read_config(
    path: str, flags: Flags = NO_FLAGS, *, only: str | None = None, hostname: Callable[[], str] = socket.gethostname
) -> Config:
    """The configuration in the file at ``path``. :class:`ConfigError`, also for a file that cannot be read.

    ``only`` is the one role that this process runs (see :meth:`Config.only`): errors in the values of the other roles
    are warnings.
    """
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(4 * SIZE_MAX + 1)
    except OSError as e:
        hint = " Run this as the user who may read it (often root)." if isinstance(e, PermissionError) else ""
        raise ConfigError([(path, 1, f"The file cannot be read: {e.strerror}.{hint}")]) from e
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = content.count(b"\n", 0, e.start) + 1
        raise ConfigError([(path, line, "This line holds bytes that are not UTF-8. Save the file as UTF-8.")]) from e
    return _load(text, path, flags, hostname, mode, only)


def load_config(
    text: str,
    filename: str,
    flags: Flags = NO_FLAGS,
    *,
    only: str | None = None,
    hostname: Callable[[], str] = socket.gethostname,
) -> Config:
    """The configuration in ``text``. ``filename`` is used in messages, and its folder for relative paths.
    :class:`ConfigError`."""
    return _load(text, filename, flags, hostname, 0, only)


def default_config(flags: Flags, *, hostname: Callable[[], str] = socket.gethostname) -> Config:
    """The configuration that the flags alone make. :class:`BadParameter` if they are not enough."""
    findings = Findings("")
    try:
        return evolve(_build(None, findings, flags, hostname), filename=None)
    except ConfigError as e:
        raise BadParameter(" ".join(sentence for _, _, sentence in e.problems)) from None


def _load(text: str, filename: str, flags: Flags, hostname: Callable[[], str], mode: int, only: str | None) -> Config:
    findings = Findings(filename)
    return _build(parse_document(text, findings), findings, flags, hostname, mode, only)


def _build(
    node: yaml.Node | None,
    findings: Findings,
    flags: Flags,
    hostname: Callable[[], str],
    mode: int = 0,
    only: str | None = None,
) -> Config:
    """``mode`` is the file's ``st_mode``, or 0 if there is no file."""
    root = Section(findings, node, "")
    teleport = root.section("teleport")
    auth, ssh, proxy = root.section("auth_service"), root.section("ssh_service"), root.section("proxy_service")
    running = _settle_roles({"auth": auth, "proxy": proxy, "node": ssh}, flags, only)
    ssh_section = read_ssh(ssh)
    config = Config(
        filename=findings.filename,
        teleport=read_teleport(teleport, ssh_section.listen_addr.port, flags, hostname, auth_here="auth" in running),
        auth_service=read_auth(auth),
        ssh_service=ssh_section,
        proxy_service=read_proxy(proxy),
    )
    report_unknown(root, findings)
    config = check_whole(apply_flags(config, flags, findings), running, findings)
    findings.raise_problems()
    secrets = [path for path in ("teleport.auth_token", "auth_service.tokens") if path in findings.lines]
    if secrets:
        warn_if_public(findings.filename, mode, findings, findings.line_of(*secrets), "tokens")
    return evolve(config, warnings=tuple(in_order(findings.warnings)))


def _settle_roles(services: Mapping[str, Section], flags: Flags, only: str | None) -> set[str]:
    """The roles that this process runs. The sections of the others are marked as idle before they are read."""
    on = [role for role, section in services.items() if section.boolean("enabled", True)]
    running = set(roles_with(flags, on)) if only is None else {only}
    for role, section in services.items():
        if role not in running:
            section.idle(f"{section.path} does not run here")
    return running
