"""Names of environment variables: what nothing may set, and the user's own file of variables.

Runs in the launcher's children too, and so imports the standard library only.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from typing import Final

VALUE_MAX: Final = 4096
FILE: Final = ".tsh/environment"
FILE_MAX: Final = 64 * 1024
HOW_PROGRAMS_START: Final = (
    *("LD_*", "DYLD_*", "_RLD*", "GLIBC_TUNABLES", "GCONV_PATH", "GETCONF_DIR", "MALLOC_*"),  # how they are loaded
    *("LOCPATH", "NLSPATH", "TZDIR", "NIS_PATH"),  # what else libc reads, though not for set-user-ID programs
    *("HOSTALIASES", "LOCALDOMAIN", "RES_OPTIONS", "RESOLV_*"),
    *("PYTHON*", "PERL*", "RUBY*", "NODE_OPTIONS", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS"),  # how interpreters start
    *("BASH_*", "BASHOPTS", "SHELLOPTS", "ENV", "ZDOTDIR", "IFS", "PS4"),  # how shells start
)
NEVER: Final = (*HOW_PROGRAMS_START, "USER", "LOGNAME", "HOME", "SHELL", "SSH_*")  # the last are what the node says
"""Patterns of names that neither a client, whatever the configuration allows, nor a user's file can set."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)


def settable(name: str) -> bool:
    """Whether ``name`` is a name, and not one that never passes. Upper or lower case does not hide one."""
    return _NAME.fullmatch(name) is not None and not _matches(name, NEVER)


def starts_programs_otherwise(name: str) -> bool:
    """Whether ``name`` is one of :data:`HOW_PROGRAMS_START`."""
    return _matches(name, HOW_PROGRAMS_START)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name.upper(), pattern) for pattern in patterns)


def read_file(home: str) -> tuple[dict[bytes, bytes], list[str]]:
    """The variables of ``~/.tsh/environment`` and a sentence for each line that is not used (at most a few).

    Lines are ``NAME=value``, as in sshd's file; empty ones and ``#`` are skipped. Call as the user: nothing is opened
    that the user could not open, and a FIFO or a device is not waited for.
    """
    try:
        fd = os.open(os.path.join(home, FILE), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except (OSError, ValueError):
        return {}, []
    try:
        whole = os.read(fd, FILE_MAX + 1) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    except OSError:
        return {}, []
    finally:
        os.close(fd)
    if len(whole) > FILE_MAX:
        return {}, [f"~/{FILE} is longer than {FILE_MAX} bytes and is not used."]
    return parse(whole)


def parse(whole: bytes) -> tuple[dict[bytes, bytes], list[str]]:
    """As :func:`read_file`, from the file's bytes."""
    found: dict[bytes, bytes] = {}
    words: list[str] = []
    for number, line in enumerate(whole.split(b"\n"), 1):
        line = line.lstrip(b" \t").rstrip(b"\r")
        if not line or line.startswith(b"#"):
            continue
        name, equals, value = line.partition(b"=")
        if not equals or b"\0" in line or len(value) > VALUE_MAX:
            words.append(f"~/{FILE}, line {number}: this is not NAME=value.")
        elif not settable(name.decode("latin-1")):
            words.append(f"~/{FILE}, line {number}: this variable cannot be set here.")
        else:
            found[name] = value
    return found, words[:5]
