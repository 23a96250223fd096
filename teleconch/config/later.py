"""Keys that came with releases of Teleport after 4.2, and what to use here instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import yaml
from attrs import frozen

from teleconch.config.document import is_empty
from teleconch.config.section import FALSE, TRUE

_NOTHING = "There is no such thing here: leave the key out."
_OFF_UNLESS_ON = {"acme", "access_graph", "idp", "restricted_session", "x11"}  # mappings with a key 'enabled'


@frozen
class Later:
    """``since`` is the release, ``here`` the sentence that says what to do. Values in ``same`` (lower case) ask for
    what happens here anyway; ``same`` is ``None`` if every value does."""

    since: str
    here: str = _NOTHING
    same: frozenset[str] | None = frozenset()


def says_nothing(key: str, later: Later, node: yaml.Node) -> bool:
    """Whether the value of ``key`` asks for nothing that is missing here."""
    if is_empty(node) or later.same is None:
        return True
    if isinstance(node, yaml.ScalarNode):
        return str(node.value).lower() in later.same
    if isinstance(node, yaml.MappingNode):
        values = {each.value: value for each, value in node.value if isinstance(each, yaml.ScalarNode)}
        if key == "join_params":
            return "token_name" not in values or is_empty(values["token_name"])
        on = values.get("enabled")
        word = on.value.lower() if isinstance(on, yaml.ScalarNode) else ""
        return word in FALSE or (not word and (key in _OFF_UNLESS_ON or key.endswith("_service")))
    return False


def _service(since: str, what: str) -> Later:
    return Later(since, f"There is no access to {what} here: leave the section out.")


_NO = frozenset(FALSE)
_YES = frozenset(TRUE)
_PORTS = "Here HTTPS and SSH have a port each: proxy_service.web_listen_addr and listen_addr."
_TLS = "Here: https_key_file and https_cert_file, one of each."
_SECOND_FACTOR = "Here: second_factor: otp, or off."

LATER: Final[Mapping[str, Mapping[str, Later]]] = {
    "": {
        "version": Later("8", "Here: leave the key out.", frozenset({"v1", "v2", "v3"})),
        "app_service": _service("5", "web applications"),
        "kubernetes_service": _service("5", "Kubernetes"),
        "db_service": _service("6", "databases"),
        "windows_desktop_service": _service("8", "Windows desktops"),
        "metrics_service": Later("8", "Here: teleport start --diag-addr=127.0.0.1:3000, for health and readiness."),
        "tracing_service": Later("10"),
        "discovery_service": Later("11", "Hosts join by token here (tctl nodes add): leave the section out."),
        "okta_service": Later("12"),
        "plugin_service": Later("12"),
        "jamf_service": Later("13"),
        "access_graph": Later("14"),
        "debug_service": Later("16", same=None),
        "relay_service": Later("18"),
    },
    "teleport": {
        "diag_addr": Later("7", "Here it is a flag: teleport start --diag-addr=HOST:PORT."),
        "join_params": Later("8", "Here: auth_token with the token, or the path of a file that holds it."),
        "auth_server": Later("11", "Here: auth_servers with a list, such as [auth.example.com:3025]."),
        "proxy_server": Later("11", "Hosts join at the auth server here: auth_servers, with its port 3025."),
        "relay_server": Later("18"),
    },
    "teleport.log": {"format": Later("6", same=None)},
    "auth_service": {
        "session_control_timeout": Later("4.3", same=None),
        "client_idle_timeout_message": Later("7"),
        "message_of_the_day": Later("8", "A node shows /etc/motd; there is no text at tsh login: leave the key out."),
        "web_idle_timeout": Later("8"),
        "ca_key_params": Later("8", "The authorities' keys are in data_dir here: leave the key out."),
        "proxy_listener_mode": Later("8", _PORTS, frozenset({"separate"})),
        "routing_strategy": Later("8", "Two nodes of one name go by UUID here.", frozenset({"unambiguous_match"})),
        "tunnel_strategy": Later("10"),
        "hosted_plugins": Later("11"),
        "proxy_ping_interval": Later("12", same=None),
        "case_insensitive_routing": Later("12", same=_NO),
        "load_all_cas": Later("12", same=_NO),
        "assist": Later("13"),
        "access_monitoring": Later("14"),
        "ssh_dial_timeout": Later("14", same=None),
    },
    "auth_service.authentication": {
        "require_session_mfa": Later("6", "The second factor is asked for at tsh login only: leave the key out.", _NO),
        "webauthn": Later("8", _SECOND_FACTOR),
        "locking_mode": Later("8", same=frozenset({"best_effort"})),
        "passwordless": Later("10", _SECOND_FACTOR, _NO),
        "private_key_policy": Later("10", same=frozenset({"none"})),
        "device_trust": Later("11"),
        "headless": Later("12", same=_NO),
        "default_session_ttl": Later("13", "Here: tsh login --ttl.", frozenset({"12h", "12h0m0s"})),
        "piv_slot": Later("14"),
        "okta": Later("15"),
        "hardware_key": Later("16"),
        "second_factors": Later("17", _SECOND_FACTOR),
        "signature_algorithm_suite": Later("17", "Keys are Ed25519 and ECDSA here: leave the key out."),
        "stable_unix_user_config": Later("18"),
    },
    "ssh_service": {
        "port_forwarding": Later("7", "Forwarding is a matter of a user's certificate here, not of a node.", _YES),
        "restricted_session": Later("8"),
        "x11": Later("9"),
        "ssh_file_copy": Later("10", "SFTP and scp cannot be turned off here.", _YES),
        "disable_create_host_user": Later("10", "Nodes never create accounts.", same=None),
        "aws": Later("10", "Hosts join by token here (tctl nodes add)."),
        "azure": Later("11", "Hosts join by token here (tctl nodes add)."),
        "gcp": Later("12", "Hosts join by token here (tctl nodes add)."),
        "force_listen": Later("16", "A node always listens.", same=None),
    },
    "ssh_service.pam": {
        "use_pam_auth": Later("4.4", "PAM's account and session run here, its auth does not.", _NO),
        "environment": Later("6"),
    },
    "proxy_service": {
        "kube_listen_addr": Later("5", "There is no access to Kubernetes here: leave the key out."),
        "kube_public_addr": Later("5", "There is no access to Kubernetes here: leave the key out."),
        "https_keypairs": Later("5", _TLS),
        "acme": Later("6", f"It is not available. {_TLS}"),
        "mysql_listen_addr": Later("6"),
        "mysql_public_addr": Later("7"),
        "postgres_public_addr": Later("7"),
        "postgres_listen_addr": Later("8"),
        "mongo_listen_addr": Later("8"),
        "mongo_public_addr": Later("8"),
        "mysql_server_version": Later("9"),
        "peer_listen_addr": Later("10"),
        "peer_public_addr": Later("10"),
        "ui": Later("12", same=None),
        "idp": Later("12"),
        "https_keypairs_reload_interval": Later("13", "A restart reads a new certificate.", frozenset({"0", "0s"})),
        "assist": Later("14"),
        "trust_x_forwarded_for": Later("14", same=_NO),
        "automatic_upgrades_channels": Later("15"),
        "proxy_protocol_allow_downgrade": Later("16", same=_NO),
    },
}  # fmt: skip
