"""``scp -t`` and ``scp -f``: what a client of scp's old protocol runs on this side, through the user's shell."""

from __future__ import annotations

import os
import sys

from teleconch.node.files import hung_up
from teleconch.node.files.hung_up import HungUp
from teleconch.node.files.report import Report
from teleconch.node.files.scp_sink import Fatal, Sink
from teleconch.node.files.scp_source import Source
from teleconch.node.files.scp_wire import Lost, Wire

_FLAGS = b"346ABCOTdfpqrtv12"
_WITH_VALUE = b"DFJPSXcilo"


class Usage(Exception):
    """These arguments are not for this side of a transfer."""


def parse(arguments: list[bytes]) -> tuple[set[int], list[bytes]]:
    """Flags, and what comes after them, as getopt(3) takes them apart. Usage."""
    flags: set[int] = set()
    rest = list(arguments)
    while rest and rest[0].startswith(b"-") and rest[0] != b"-":
        cluster = rest.pop(0)
        if cluster == b"--":
            break
        for at, flag in enumerate(cluster[1:], 2):
            if flag in _WITH_VALUE:
                if at == len(cluster) and rest:
                    rest.pop(0)
                break
            if flag not in _FLAGS:
                raise Usage
            flags.add(flag)
    return flags, rest


def run(arguments: list[bytes], to: Report, stdin: int = 0, stdout: int = 1) -> int:
    """Be the source or the sink; returns the exit status. ``arguments`` are those after the program's name."""
    try:
        flags, paths = parse(arguments)
        if (ord("t") in flags) == (ord("f") in flags):
            raise Usage
    except Usage:
        os.write(2, b"usage: scp -t [-dprv] target, or scp -f [-prv] source ...\n")
        return 1
    hung_up.catch()
    wire = Wire(stdin, stdout)
    recursive, preserve = ord("r") in flags, ord("p") in flags
    sys.setrecursionlimit(10_000)  # a path has at most 2,048 directories
    try:
        if ord("f") in flags:
            Source(wire, to, recursive=recursive, preserve=preserve).run(paths)
        else:
            umask = os.umask(0)
            if not preserve:
                os.umask(umask)
            sink = Sink(wire, to, recursive=recursive, preserve=preserve, umask=umask)
            sink.run(paths, must_be_directory=ord("d") in flags)
    except (Lost, Fatal, HungUp):
        return 1
    finally:
        to.send()
    return 1 if wire.errors else 0


def main(report_fd: int | None = None) -> int:
    """For a process of its own: the arguments are the program's."""
    return run([os.fsencode(each) for each in sys.argv[1:]], Report("scp", report_fd))
