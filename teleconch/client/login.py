"""Log in: new keys, the proxy's answer to password and second factor, and what is kept where."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from teleconch.ca.keys import new_ssh_key, new_tls_key, public_blob
from teleconch.ca.ssh import certificate_summary, signed_key
from teleconch.client.agent import remove_key
from teleconch.client.identity import Identity
from teleconch.client.profile import Profile, Profiles
from teleconch.client.web import Ping, WebClient
from teleconch.errors import ConnectionProblem, NotFound
from teleconch.resources.login import LoginRequest
from teleconch.resources.secret import Secret


@frozen
class Login:
    """A login that succeeded; none of it is kept yet."""

    profile: Profile
    identity: Identity
    public_key: str
    valid_after: float
    valid_before: float


def login(
    web: WebClient,
    user: str,
    ttl: float | None,
    ask_password: Callable[[], Secret],
    ask_otp: Callable[[], str],
) -> Login:
    """Log ``user`` in. Asks for the password, and for a code if the cluster wants one. A TeleconchError."""
    ping: Ping = web.ping()
    password = ask_password()
    otp = ask_otp().replace(" ", "") if ping.second_factor not in ("off", "") else ""
    ssh_private, ssh_public = new_ssh_key()
    tls_private, tls_public = new_tls_key()
    signed = web.login(LoginRequest(user, password, otp, ssh_public, tls_public, ttl))
    summary = certificate_summary(public_blob(signed.ssh_cert))
    if signed_key(public_blob(signed.ssh_cert)) != public_blob(ssh_public) or not signed.authorities:
        raise ConnectionProblem("The proxy answered with a certificate for another key; nothing was stored.")
    identity = Identity(
        ssh_private_key=ssh_private,
        ssh_cert=signed.ssh_cert,
        tls_private_key=tls_private,
        tls_cert=signed.tls_cert,
        authorities=tuple(signed.authorities),
    )
    profile = Profile(web.proxy.web, ping.ssh_proxy_addr, signed.user, signed.cluster)
    return Login(profile, identity, ssh_public, summary.valid_after, summary.valid_before)


def logout(profiles: Profiles, profile: Profile, agent: str | None) -> bool:
    """Remove the keys of ``profile`` from ``~/.tsh`` and from the agent. Returns whether there were any. OSError."""
    try:
        _, cert = profiles.ssh_key(profile)
        if agent is not None:
            remove_key(agent, cert)
    except (NotFound, ConnectionProblem):
        pass  # logged out before, or the agent is gone and its keys with it
    return profiles.forget(profile)
