"""A load of joins, heartbeats, users and tokens on one auth server. Prints each thing that was answered, as JSON.

``python load.py ADMIN_FOLDER AUTH_ADDRESS TOKEN FOLDER``; ends with SIGTERM. What is not answered is not printed.
"""

from __future__ import annotations

import json
import random
import sys
import time
from functools import partial
from pathlib import Path
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from teleconch.api.client import AuthClient
from teleconch.api.membership import Membership
from teleconch.api.tls import TLSCredentials, member_tls
from teleconch.errors import TeleconchError
from teleconch.resources.authority import TrustedAuthority
from teleconch.resources.node import Node
from teleconch.resources.secret import Secret
from teleconch.resources.user import User
from tests.worlds.reactor import reactor

T = TypeVar("T")
admin_folder, address, token, folder = sys.argv[1:]
chance = random.Random(time.time_ns())


def _same(value: T) -> T:
    return value


def answered(kind: str, name: str) -> None:
    sys.stdout.write(json.dumps([kind, name]) + "\n")
    sys.stdout.flush()


async def administrate() -> None:
    """Users and tokens, one after the other."""
    number = 0
    while True:
        client = None
        try:
            admin = Path(admin_folder)
            ca = (admin / "ca.crt").read_text()
            trust = (TrustedAuthority("host", "main", (), (ca,)),)
            credentials = TLSCredentials((admin / "tls.crt").read_text(), Secret((admin / "tls.key").read_text()))
            client = AuthClient(
                reactor, [address], member_tls(partial(_same, credentials), partial(_same, trust), time.time)
            )
            while True:
                number += 1
                name = f"user-{number}"
                await client.api.create_user(User(name=name, traits={"logins": (name,)}), 3600)
                answered("user", name)
                made = await client.api.create_token(("node",), 3600, None)
                answered("token", made.value.reveal())
                if number % 3 == 0:
                    answered("leaving", name)  # asked for: whether it happened is open until it is answered
                    await client.api.delete_user(name)
                    answered("gone", name)
        except (TeleconchError, ValueError, OSError):
            await deferLater(reactor, 0.05)  # killed, or just starting: go on with the next name
        finally:
            if client is not None:
                client.close()


async def be_a_node(number: int) -> None:
    """Join, ping for a while, and begin anew as another node."""
    generation = 0
    while True:
        generation += 1
        name = f"node-{number}-{generation}"
        member = Membership(
            reactor, data_dir=Path(folder) / name, role="node", nodename=name, addresses=(), auth_servers=[address],
            token=Secret(token), ca_pins=(), now=time.time, chance=chance,
        )  # fmt: skip
        try:
            await member.start()
            answered("host", member.uuid)
            for _ in range(10):
                node = Node(uuid=member.uuid, nodename=name, cluster="main", addr="127.0.0.1:1")
                await member.client.heartbeat(node, "instance")
                answered("ping", member.uuid)
                await deferLater(reactor, 0.02 * chance.random())
        except TeleconchError:
            await deferLater(reactor, 0.05)
        finally:
            member.stop()


for each in (administrate(), *(be_a_node(number) for number in range(4))):
    Deferred.fromCoroutine(each).addErrback(lambda failure: sys.stderr.write(failure.getTraceback()))
reactor.run()
