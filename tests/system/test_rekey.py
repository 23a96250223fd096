"""Sessions that go through many key exchanges while data runs both ways."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import threading
from collections.abc import Iterator

import pytest

from tests.worlds.pair import Pair

MIB = 1 << 20
pytestmark = pytest.mark.program("ssh")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    made = Pair(tmp_path_factory.mktemp("rekey"))
    yield made
    made.stop()


@pytest.mark.parametrize("road", ["direct", "jump"])
@pytest.mark.parametrize("size", [24, pytest.param(1024, marks=pytest.mark.soak)])
def test_new_keys_for_each_mebibyte(pair: Pair, road: str, size: int) -> None:
    """Whoever streams for hours gets every byte, in both directions at once, however often keys are exchanged."""
    ssh, *rest = getattr(pair, road)
    command = [str(each) for each in (ssh, "-o", "RekeyLimit=1M", "-v", *rest, "cat")]
    blocks = [os.urandom(MIB) for _ in range(16)]
    sent, received = hashlib.sha256(), hashlib.sha256()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as client:
        said: list[bytes] = []

        def send() -> None:
            for _ in range(size):
                block = random.choice(blocks)
                sent.update(block)
                client.stdin.write(block)
            client.stdin.close()

        threads = [threading.Thread(target=send), threading.Thread(target=lambda: said.append(client.stderr.read()))]
        for each in threads:
            each.start()
        while piece := client.stdout.read1(MIB):
            received.update(piece)
        for each in threads:
            each.join()
    assert client.returncode == 0, said[0][-2000:]
    assert received.hexdigest() == sent.hexdigest()
    assert said[0].count(b"SSH2_MSG_NEWKEYS received") > size  # a first one, and at least one for each mebibyte
