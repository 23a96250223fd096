"""``twistd teleport-auth -c FILE``: the auth role of a file."""

from __future__ import annotations

from twisted.application.service import IService

from teleconch.service.twistd import Options, role_service

__all__ = ["Options", "makeService"]


def makeService(options: Options) -> IService:
    """The service, for twistd."""
    return role_service(options, "auth")
