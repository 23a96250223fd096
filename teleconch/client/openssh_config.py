"""The OpenSSH client's configuration for a cluster: what ``tsh config`` prints (ssh_config(5); OpenSSH 7.4 and later).

Everything about the proxy is inside ``ProxyCommand``, so that ``ssh PROXY`` for other purposes stays as it was. The
proxy itself is excepted, since its name may well end in the cluster's. No path names a user: the block stays right
after a login as someone else, and if it is there twice.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final

from teleconch.client.address import split_address
from teleconch.client.profile import Profile
from teleconch.defaults import NODE_PORT, PROXY_PORT
from teleconch.errors import BadParameter, quoted
from teleconch.resources.names import check_name

# Our authorities sign these, and OpenSSH 7.4 knows the names. The user's preferences elsewhere may lack them.
_KEYS: Final = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")
_CERTIFICATES: Final = ",".join(f"{name}-cert-v01@openssh.com" for name in _KEYS)
# The user's own configuration may mean these for sessions; the connection to the proxy is not one. An option that an
# older ssh does not know is not an error there: the ssh around it has read the same file and reported it.
_SHIELD: Final = (
    ("IgnoreUnknown", "*"),
    ("ClearAllForwardings", "yes"),
    ("ExitOnForwardFailure", "no"),
    ("RemoteCommand", "none"),
    ("PermitLocalCommand", "no"),
    ("StdinNull", "no"),
    ("ForkAfterAuthentication", "no"),
    ("Tunnel", "no"),
    ("AddKeysToAgent", "no"),
)


def openssh_config(profile: Profile, key: Path, known_hosts: Path) -> str:
    """The block for ``~/.ssh/config``. ``key`` has its certificate in ``key-cert.pub``. BadParameter for a path that
    OpenSSH cannot be told, or a cluster or proxy that would be more than a name there."""
    check_name(profile.cluster, "The cluster's name")
    cert = key.with_name(f"{key.name}-cert.pub")
    proxy, port = split_address(profile.ssh_proxy_addr, PROXY_PORT)
    common = [
        ("IdentityFile", _quoted(key)),
        ("CertificateFile", _quoted(cert)),
        ("IdentitiesOnly", "yes"),
        ("PubkeyAuthentication", "yes"),
        ("PreferredAuthentications", "publickey"),
        # PubkeyAcceptedAlgorithms since OpenSSH 8.5, which knows both. It signs for a certificate only with a key whose
        # own algorithm is accepted too.
        ("PubkeyAcceptedKeyTypes", ",".join((_CERTIFICATES, *_KEYS))),
        ("HostKeyAlgorithms", _CERTIFICATES),
        ("UserKnownHostsFile", _quoted(known_hosts)),
        ("StrictHostKeyChecking", "yes"),
    ]
    options = " ".join(f"-o {shlex.quote(f'{name}={value}')}" for name, value in (*_SHIELD, *common))
    options = options.replace("%", "%%")  # read twice: by the ssh that runs the command, and by the one that it runs
    own = [
        *common,
        ("Port", str(NODE_PORT)),
        # A shell reads this after %r and %h are filled in: so they are in quotes, and have none themselves (below).
        # After -l, a login is not an option to the inner ssh, even if it begins with "-" (ssh before 9.6 takes that).
        ("ProxyCommand", f"ssh -a -x -T -p {port} {options} -s -l '%r' {proxy} 'proxy:%h:%p'"),
    ]
    excepted = "".join(f" !{name}" for name in dict.fromkeys((proxy, profile.host)))
    lines = [
        f"# Cluster {profile.cluster} through {profile.host}, from `tsh config`: ssh LOGIN@NODE.{profile.cluster}",
        f'Match originalhost *.{profile.cluster} user "*\'*"',
        "    ProxyCommand false",
        f'Host *.{profile.cluster}{excepted} "!*\'*" "!*\\*"',
        *(f"    {name} {value}" for name, value in own),
        f"# End of cluster {profile.cluster}; what follows is for every host.",
        "Match all",
    ]
    return "".join(f"{line}\n" for line in lines)


def _quoted(path: Path) -> str:
    """A path as ssh_config wants it: in double quotes, ``%`` doubled."""
    text = str(path.absolute())
    if not text.isprintable() or any(char in text for char in '"\\$'):
        raise BadParameter(
            f"OpenSSH cannot be given the path {quoted(text)}: set TELEPORT_HOME to a plainer one and log in."
        )
    return f'"{text}"'.replace("%", "%%")
