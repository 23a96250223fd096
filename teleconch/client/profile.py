"""What tsh remembers: ``~/.tsh``, or ``$TELEPORT_HOME``, laid out as in Teleport 4.2.

::

    profile -> PROXY.yaml        the current proxy
    PROXY.yaml                   addresses, user and cluster
    keys/PROXY/USER              SSH private key; USER.pub and USER-cert.pub beside it
    keys/PROXY/USER-x509.key     TLS private key; its certificate in USER-x509.pem
    keys/PROXY/certs.pem         TLS certificates of the cluster's host authority
    keys/PROXY/known_hosts       its SSH keys, as @cert-authority lines
    keys/PROXY/.identity         -> USER, and .identity-cert.pub -> USER-cert.pub: whoever logged in last

PROXY is the proxy's host name, followed by ``_PORT`` if HTTPS is not on port 3080.
"""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import NamedTuple

from teleconch.atomic import make_directory, write_file, write_link
from teleconch.client.address import ProxyAddress, split_address
from teleconch.client.identity import Identity
from teleconch.client.known_hosts import authority_lines, parse_authorities
from teleconch.defaults import PROXY_PORT, WEB_PORT
from teleconch.errors import BadParameter, NotFound, TeleconchError
from teleconch.resources.authority import TrustedAuthority
from teleconch.resources.names import check_user_name
from teleconch.resources.secret import Secret

_FIELDS = ("web_proxy_addr", "ssh_proxy_addr", "auth_type", "user", "cluster")


class Profile(NamedTuple):
    """One proxy that the user has logged in to. Addresses are ``host:port``."""

    web_proxy_addr: str
    ssh_proxy_addr: str
    user: str
    cluster: str
    auth_type: str = "local"

    @property
    def host(self) -> str:
        """The proxy's host, as the user named it."""
        return split_address(self.web_proxy_addr, WEB_PORT)[0]

    @property
    def web_port(self) -> int:
        return split_address(self.web_proxy_addr, WEB_PORT)[1]

    @property
    def name(self) -> str:
        """The name of its files."""
        return self.host if self.web_port == WEB_PORT else f"{self.host}_{self.web_port}"

    @property
    def proxy_option(self) -> str:
        """What to type after ``--proxy=`` to mean this proxy."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.web_port == WEB_PORT else f"{host}:{self.web_port}"

    @property
    def login_command(self) -> str:
        """What to type to log in here."""
        user = f" --user={self.user}" if self.user else ""
        return f"tsh login --proxy={self.proxy_option}{user}"

    def matches(self, proxy: ProxyAddress) -> bool:
        """Whether ``--proxy`` with this value means this profile."""
        return self.host == proxy.host and proxy.web_port in (None, self.web_port)

    def at(self, proxy: ProxyAddress) -> Profile:
        """The same with the SSH port that the user named, if any."""
        return self if proxy.ssh_port is None else self._replace(ssh_proxy_addr=proxy.ssh)


def home() -> Path:
    """The directory of tsh: ``$TELEPORT_HOME``, else ``~/.tsh``."""
    named = os.environ.get("TELEPORT_HOME")
    return Path(named) if named else Path("~/.tsh").expanduser()


class Profiles:
    """The profiles and keys under one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    # --- which profile ---

    def current(self) -> Profile | None:
        """The profile of the last login. BadParameter if the directory is closed to this user."""
        try:
            name = os.readlink(self.directory / "profile")
        except PermissionError as error:
            raise self._closed("read", error) from None
        except OSError:
            return None
        return self._read(self.directory / os.path.basename(name))

    def all(self) -> list[Profile]:
        """Every profile, by name."""
        found = (self._read(path) for path in sorted(self.directory.glob("*.yaml")))
        return [profile for profile in found if profile is not None]

    def find(self, proxy: ProxyAddress | None) -> Profile:
        """The profile that ``--proxy`` means, or the current one. NotFound with what to type."""
        if proxy is None:
            profile = self.current()
            if profile is None:
                raise NotFound("You are not logged in: type `tsh login --proxy=HOST` with the host of your proxy.")
            return profile
        current = self.current()
        if current is not None and current.matches(proxy):
            return current.at(proxy)
        matching = [profile for profile in self.all() if profile.matches(proxy)]
        if not matching:
            port = f":{proxy.web_port}" if proxy.web_port else ""
            raise NotFound(f"You are not logged in to {proxy.host}: type `tsh login --proxy={proxy.host}{port}`.")
        if len(matching) > 1:
            names = " or ".join(f"--proxy={profile.proxy_option}" for profile in matching)
            raise BadParameter(f"You are logged in to several proxies on {proxy.host}: say {names}.")
        return matching[0].at(proxy)

    # --- reading ---

    def keys_directory(self, profile: Profile) -> Path:
        return self.directory / "keys" / profile.name

    def private_key_path(self, profile: Profile) -> Path:
        return self.keys_directory(profile) / profile.user

    def cert_path(self, profile: Profile) -> Path:
        return self.keys_directory(profile) / f"{profile.user}-cert.pub"

    def identity_path(self, profile: Profile) -> Path:
        """The private key of whoever logged in last at this proxy."""
        return self.keys_directory(profile) / ".identity"

    def known_hosts_path(self, profile: Profile) -> Path:
        return self.keys_directory(profile) / "known_hosts"

    def ssh_key(self, profile: Profile) -> tuple[Secret, str]:
        """SSH private key (OpenSSH PEM) and certificate line. NotFound if the user is logged out."""
        try:
            key = self.private_key_path(profile).read_text("ascii")
            return Secret(key), self.cert_path(profile).read_text("ascii").strip()
        except FileNotFoundError:
            raise NotFound(f"You are logged out of {profile.host}: type `{profile.login_command}`.") from None

    def authorities(self, profile: Profile) -> tuple[TrustedAuthority, ...]:
        """The host authorities of the cluster, as they were at the login; none if there was no login."""
        directory = self.keys_directory(profile)
        try:
            certs = (directory / "certs.pem").read_text("ascii")
            lines = (directory / "known_hosts").read_text("ascii")
        except FileNotFoundError:
            return ()
        return parse_authorities(lines, split_pem(certs))

    def identity(self, profile: Profile) -> Identity:
        """Everything that the user has at this proxy. NotFound if the user is logged out."""
        key, cert = self.ssh_key(profile)
        directory = self.keys_directory(profile)
        try:
            tls_key = (directory / f"{profile.user}-x509.key").read_text("ascii")
            tls_cert = (directory / f"{profile.user}-x509.pem").read_text("ascii")
        except FileNotFoundError:
            raise NotFound(f"You are logged out of {profile.host}: type `{profile.login_command}`.") from None
        return Identity(key, cert, Secret(tls_key), tls_cert, self.authorities(profile))

    # --- writing ---

    def check_writable(self) -> None:
        """Check that a login can be kept. Call before asking for a password. BadParameter."""
        path = self.directory / "keys"
        try:
            while not path.exists():
                path = path.parent
            if not path.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            if not os.access(path, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise self._closed("written", error) from None

    def _closed(self, done: str, error: OSError) -> BadParameter:
        return BadParameter(
            f"{self.directory}, where tsh keeps logins, cannot be {done} ({error.strerror}): make it yours, with mode"
            " 700, or name another directory in TELEPORT_HOME."
        )

    def save(self, profile: Profile, identity: Identity, public_key: str) -> None:
        """Keep a login, and make it the current one. What was kept before goes first, so that nobody meanwhile reads an
        old certificate with a new key. OSError; BadParameter for a user whose name cannot be a file's."""
        check_user_name(profile.user)
        if profile.user.startswith(".") or profile.user in ("certs.pem", "known_hosts"):
            raise BadParameter(f"tsh cannot keep files for a user named {profile.user}: ask for another user name.")
        directory = self.keys_directory(profile)
        try:
            make_directory(directory)
        except FileExistsError as error:
            raise TeleconchError(
                f"{error.filename} is in the way: a directory is needed there; move that file."
            ) from None
        for path in (self.directory, directory.parent, directory):
            if path.stat().st_uid == os.geteuid():
                path.chmod(0o700)
        lines = [line for authority in identity.authorities for line in authority_lines(authority, _hosts(profile))]
        certs = [cert.strip() for authority in identity.authorities for cert in authority.tls_certs]
        write_file(directory / "known_hosts", "".join(f"{line}\n" for line in lines).encode("ascii"))
        write_file(directory / "certs.pem", "".join(f"{cert}\n" for cert in certs).encode("ascii"))
        self._forget_keys(profile)
        write_file(directory / f"{profile.user}-x509.pem", identity.tls_cert.encode("ascii"))
        write_file(directory / f"{profile.user}-x509.key", identity.tls_private_key.reveal().encode("ascii"))
        write_file(directory / f"{profile.user}.pub", f"{public_key.strip()}\n".encode("ascii"))
        write_file(self.private_key_path(profile), f"{identity.ssh_private_key.reveal().strip()}\n".encode("ascii"))
        write_file(self.cert_path(profile), f"{identity.ssh_cert.strip()}\n".encode("ascii"))
        write_link(self.identity_path(profile), profile.user)
        write_link(directory / ".identity-cert.pub", f"{profile.user}-cert.pub")
        text = "".join(f"{name}: {json.dumps(getattr(profile, name))}\n" for name in _FIELDS)
        write_file(self.directory / f"{profile.name}.yaml", text.encode("ascii"))
        self.select(profile)

    def select(self, profile: Profile) -> None:
        """Make an existing profile the current one."""
        write_link(self.directory / "profile", f"{profile.name}.yaml")

    def forget(self, profile: Profile) -> bool:
        """Remove the user's keys at this proxy; the proxy and its authorities stay known. Returns whether there were
        any."""
        return self._forget_keys(profile)

    def _forget_keys(self, profile: Profile) -> bool:
        there = False
        for suffix in ("-cert.pub", "", ".pub", "-x509.key", "-x509.pem"):
            path = self.keys_directory(profile) / f"{profile.user}{suffix}"
            there = there or path.exists()
            path.unlink(missing_ok=True)
        return there

    def _read(self, path: Path) -> Profile | None:
        try:
            values = read_fields(path.read_text("utf-8"))
            profile = Profile(**{name: values[name] for name in _FIELDS if name in values})
            _ = profile.name, split_address(profile.ssh_proxy_addr, PROXY_PORT)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, BadParameter):
            raise BadParameter(f"{path} is damaged: remove it and type `tsh login --proxy=HOST` again.") from None
        return profile


def _hosts(profile: Profile) -> list[str]:
    return list(dict.fromkeys((profile.host, split_address(profile.ssh_proxy_addr, PROXY_PORT)[0])))


def split_pem(text: str) -> tuple[str, ...]:
    """The blocks of a PEM file, one by one."""
    end = "-----END CERTIFICATE-----\n"
    return tuple(part.lstrip() + end for part in text.replace("\r\n", "\n").split(end) if part.strip())


def read_fields(text: str) -> dict[str, str]:
    """The strings of a flat YAML mapping. What tsh writes is read without the YAML library, whose import would make
    every `tsh ssh` slower. ValueError."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(": ")
        if not colon or not name.isidentifier() or not value.startswith('"'):
            return _read_yaml(text)
        try:
            fields[name] = json.loads(value)
        except ValueError:  # YAML has escapes that JSON does not
            return _read_yaml(text)
    return fields


def _read_yaml(text: str) -> dict[str, str]:
    import yaml

    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError("not YAML") from error
    if not isinstance(value, dict):
        raise ValueError("not a mapping")
    return {str(name): item for name, item in value.items() if isinstance(item, str)}
