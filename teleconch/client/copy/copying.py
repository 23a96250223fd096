"""The rules of scp(1): what goes where, and how bytes get there."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable
from typing import Final, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred, FirstError, gatherResults

from teleconch.client.copy.tree import CopyProblem, OpenFile, Status, Tree
from teleconch.errors import TeleconchError

PIECE: Final = 128 * 1024
AT_ONCE: Final = 16  # pieces on their way
DEPTH_MAX: Final = 64  # as OpenSSH


class Meter(Protocol):
    """Hears how a copy is going."""

    def begin(self, name: str, size: int) -> None: ...

    def moved(self, count: int) -> None: ...

    def end(self) -> None: ...


@frozen
class Location:
    """A path somewhere. ``node`` empty: this machine."""

    tree: Tree
    path: bytes
    node: str = ""

    def __str__(self) -> str:
        text = self.path.decode("utf-8", "replace")
        return f"{self.node}:{text}" if self.node else text

    def under(self, name: bytes) -> Location:
        """Something in this directory."""
        return Location(self.tree, os.path.join(self.path, name), self.node)


class Copying:
    """One run. ``failed`` takes a sentence for each file that is not copied; ``failures`` counts them."""

    def __init__(self, recursive: bool, preserve: bool, meter: Meter, failed: Callable[[str], None]) -> None:
        self._recursive = recursive
        self._preserve = preserve
        self._meter = meter
        self._failed = failed
        self.failures = 0

    def fail(self, sentence: str) -> None:
        self.failures += 1
        self._failed(sentence)

    async def run(self, sources: list[Location], target: Location) -> None:
        """Copy all sources. ConnectionProblem if a connection is lost; any other failure is told, and the rest goes
        on."""
        found: list[tuple[Location, Status]] = []
        for source in sources:
            try:
                found += await _find(source)
            except CopyProblem as problem:
                self.fail(f"{problem}.")
        there = await target.tree.stat(target.path)
        into = there is not None and there.is_directory
        wants_directory = len(sources) > 1 or len(found) > 1 or target.path.endswith(b"/")
        one_directory = len(found) == 1 and found[0][1].is_directory and self._recursive
        if wants_directory and not into and not (one_directory and len(sources) == 1 and there is None):
            raise CopyProblem(f"{target}: there is no such directory to copy into.")
        for source, status in found:
            name = os.path.basename(source.path.rstrip(b"/"))
            inside = into and name not in (b"", b".", b"..")
            await self._guarded(source, status, target.under(name) if inside else target, ())

    async def _guarded(self, source: Location, status: Status, target: Location, above: tuple[bytes, ...]) -> None:
        """``above``: the directories that this is in, without links."""
        try:
            if status.is_directory:
                await self._directory(source, status, target, above)
            elif status.is_file:
                await self._file(source, status, target)
            else:
                raise CopyProblem(f"{source}: it is not a regular file")
        except CopyProblem as problem:
            self.fail(f"{problem}.")

    async def _directory(self, source: Location, status: Status, target: Location, above: tuple[bytes, ...]) -> None:
        if not self._recursive:
            raise CopyProblem(f"{source}: it is a directory, which only -r copies")
        if len(above) >= DEPTH_MAX:
            raise CopyProblem(f"{source}: directories are nested too deep")
        real = await self._real(source, above)
        if real in above:
            raise CopyProblem(f"{source}: the link leads to a directory that it is in; it is not followed")
        names = await source.tree.names(source.path)
        there = await target.tree.stat(target.path)
        mode = status.mode & 0o1777
        if there is None:
            await target.tree.make_directory(target.path, mode & 0o777 | 0o700)
        elif not there.is_directory:
            raise CopyProblem(f"{target}: it exists already and is not a directory")
        for name in names:
            child = source.under(name)
            try:
                found = await source.tree.stat(child.path)
                if found is None:
                    raise CopyProblem(f"{child}: No such file or directory")
            except CopyProblem as problem:
                self.fail(f"{problem}.")
                continue
            await self._guarded(child, found, target.under(name), (*above, real))
        if self._preserve:
            await target.tree.set_status(target.path, mode, (status.atime, status.mtime))
        elif there is None and mode & 0o700 != 0o700:
            await target.tree.set_status(target.path, mode & 0o777, None)

    @staticmethod
    async def _real(source: Location, above: tuple[bytes, ...]) -> bytes:
        """Where a directory is. One that is not a link is in the one above, so there is no need to ask."""
        if above and not await source.tree.is_link(source.path):
            return os.path.join(above[-1], os.path.basename(source.path))
        return await source.tree.real(source.path)

    async def _file(self, source: Location, status: Status, target: Location) -> None:
        mode = status.mode & 0o777  # as OpenSSH: a copy does not run as its owner
        reading = await source.tree.open_source(source.path)
        self._meter.begin(os.path.basename(source.path).decode("utf-8", "replace"), status.size)
        try:
            writing = await target.tree.open_target(target.path, mode | 0o200)
            try:
                await _pump(reading, writing, status.size, self._meter)
                if self._preserve:
                    await writing.set_status(mode, (status.atime, status.mtime))
            finally:
                await writing.close()
        finally:
            self._meter.end()
            await reading.close()


async def _pump(reading: OpenFile, writing: OpenFile, size: int, meter: Meter) -> None:
    """Copy ``size`` bytes, several pieces at once. A file of size 0 may be the kernel's: it is read to its end."""
    at, over = 0, False

    async def carry() -> None:
        nonlocal at, over
        while not over and (not size or at < size):
            offset = at
            end = at = min(offset + PIECE, size) if size else offset + PIECE
            while offset < end:
                data = await reading.read(offset, end - offset)
                if not data:  # it was cut short while we read
                    over = True
                    return
                await writing.write(offset, data)
                offset += len(data)
                meter.moved(len(data))

    workers = min(AT_ONCE, -(-size // PIECE)) if size else 1
    running = [Deferred.fromCoroutine(carry()) for _ in range(workers)]
    try:
        await gatherResults(running, consumeErrors=True)
    except FirstError as first:
        over = True
        for each in running:
            each.addErrback(lambda _: None)
        await gatherResults(running)  # nothing is written after the file is closed
        first.subFailure.raiseException()


async def _find(source: Location) -> list[tuple[Location, Status]]:
    """What a source means: itself, or what its wildcards match on a node. CopyProblem."""
    path = await source.tree.expand(source.path)
    source = Location(source.tree, path, source.node)
    status = await source.tree.stat(path)
    if status is not None:
        return [(source, status)]
    found: list[tuple[Location, Status]] = []
    if source.node and re.search(rb"[*?\[\\]", path):
        for match in await _matches(source.tree, path):
            status = await source.tree.stat(match)
            if status is not None:
                found.append((Location(source.tree, match, source.node), status))
    if not found:
        raise CopyProblem(f"{source}: No such file or directory")
    return found


async def _matches(tree: Tree, pattern: bytes) -> list[bytes]:
    found = [b"/" if pattern.startswith(b"/") else b""]
    for part in pattern.split(b"/"):
        if not part:
            continue
        if not re.search(rb"[*?\[\\]", part):
            found = [os.path.join(base, part) for base in found]
            continue
        quoted = re.sub(rb"\\(.)", lambda match: b"[" + match[1] + b"]", part).decode("latin-1")
        wanted = re.compile(fnmatch.translate(quoted))
        deeper: list[bytes] = []
        for base in found:
            try:
                names = await tree.names(base or b".")
            except TeleconchError:
                continue  # not a directory, or not for this login
            deeper += [
                os.path.join(base, name)
                for name in names
                if wanted.match(name.decode("latin-1")) and (name[:1] != b"." or part[:1] == b".")
            ]
        found = deeper
    return found
