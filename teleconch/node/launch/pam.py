"""PAM around a user's process: ``account`` decides whether it may start, ``session`` opens before it and closes after
it.

The conversation answers no question: there is nobody to ask, and the certificate has shown who the user is. What
modules say is kept, for the terminal. Authentication modules are never called.

Runs in the launcher's children only, as root, and so imports the standard library only.
"""

from __future__ import annotations

import ctypes
from typing import Final

from teleconch.errors import AccessDenied, Unavailable
from teleconch.node.launch.variables import starts_programs_otherwise

SUCCESS: Final = 0
BUF_ERR: Final = 5
CONV_ERR: Final = 19
NEW_AUTHTOK_REQD: Final = 12
_TTY, _RHOST = 3, 4
_ESTABLISH, _DELETE = 0x2, 0x4
_ERROR_MSG, _TEXT_INFO = 3, 4
_SAID_MAX: Final = 64 * 1024


class _Message(ctypes.Structure):
    _fields_ = [("style", ctypes.c_int), ("text", ctypes.c_char_p)]


class _Response(ctypes.Structure):
    _fields_ = [("text", ctypes.c_void_p), ("code", ctypes.c_int)]


_Messages = ctypes.POINTER(ctypes.POINTER(_Message))
_Responses = ctypes.POINTER(ctypes.c_void_p)
_Talk = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, _Messages, _Responses, ctypes.c_void_p)


class _Conversation(ctypes.Structure):
    _fields_ = [("talk", _Talk), ("data", ctypes.c_void_p)]


class Stack:
    """One PAM transaction for one process. :meth:`open`, and :meth:`close` when the process has ended."""

    def __init__(self, service: str, login: str, terminal: str | None, host: str) -> None:
        """Unavailable if the machine has no PAM."""
        try:
            self._pam = ctypes.CDLL("libpam.so.0")
        except OSError:
            raise Unavailable(
                "PAM is turned on for this node, but the library libpam.so.0 is not there; tell the administrator."
            ) from None
        self._libc = ctypes.CDLL(None)
        self._libc.calloc.restype = ctypes.c_void_p
        self._pam.pam_strerror.restype = ctypes.c_char_p
        self._pam.pam_getenvlist.restype = ctypes.POINTER(ctypes.c_char_p)
        self._said: list[bytes] = []
        self._talk = _Talk(self._hear)  # kept: libpam calls it as long as the transaction lives
        self._conversation = _Conversation(self._talk, None)
        self._handle = ctypes.c_void_p()
        self._service = service
        self._opened = False
        status = self._pam.pam_start(
            service.encode(), login.encode(), ctypes.byref(self._conversation), ctypes.byref(self._handle)
        )
        if status != SUCCESS:
            raise Unavailable(f"The PAM service {service} of this node cannot be used; tell the administrator.")
        # Modules expect a terminal's name; "ssh" is what sshd gives where there is none.
        self._check(self._pam.pam_set_item(self._handle, _TTY, (terminal or "ssh").encode()), "start")
        self._check(self._pam.pam_set_item(self._handle, _RHOST, host.encode()), "start")

    def open(self, variables: dict[bytes, bytes]) -> bool:
        """Account, credentials, session; ``variables`` are known to the modules. AccessDenied.

        Returns whether the password has to be changed first (there is one, and it has expired).
        """
        for name, value in variables.items():
            self._check(self._pam.pam_putenv(self._handle, name + b"=" + value), "environment")
        status = self._pam.pam_acct_mgmt(self._handle, 0)
        if status != NEW_AUTHTOK_REQD:
            self._check(status, "account")
        # Modules of the auth stack that were never asked may have none to give: as in sshd, that is not a refusal.
        self._pam.pam_setcred(self._handle, _ESTABLISH)
        self._check(self._pam.pam_open_session(self._handle, 0), "session")
        self._opened = True
        return bool(status == NEW_AUTHTOK_REQD)

    def said(self) -> bytes:
        """What the modules had to say so far, one line each."""
        said, self._said = self._said, []
        return b"".join(line.rstrip(b"\n") + b"\n" for line in said if line.strip())

    def variables(self) -> dict[bytes, bytes]:
        """The environment that the modules made."""
        found = {}
        pairs = self._pam.pam_getenvlist(self._handle)
        for number in range(4096):
            pair = pairs[number] if pairs else None
            if pair is None:
                break
            name, equals, value = pair.partition(b"=")
            if equals and name:
                found[name] = value
        return found

    def close(self) -> None:
        """Close the session, if it was opened, and end the transaction. Failures are the modules' to log."""
        status = SUCCESS
        if self._opened:
            self._opened = False
            self._forget_traps()
            status = self._pam.pam_close_session(self._handle, 0)
            self._pam.pam_setcred(self._handle, _DELETE)
        if self._handle:
            self._pam.pam_end(self._handle, status)
            self._handle = ctypes.c_void_p()

    def _forget_traps(self) -> None:
        """What pam_env took from the user's own file must not reach the programs that modules run as root."""
        for name in self.variables():
            if starts_programs_otherwise(name.decode("latin-1")):
                self._pam.pam_putenv(self._handle, name)

    def _check(self, status: int, what: str) -> None:
        if status == SUCCESS:
            return
        reason = (self._pam.pam_strerror(self._handle, status) or b"").decode("utf-8", "replace")
        said = self.said().decode("utf-8", "replace").strip()
        self.close()
        sentence = f"PAM ({what} of the service {self._service}) refuses the login: {reason}."
        raise AccessDenied(f"{said}\n{sentence}"[:2048] if said else sentence)

    def _hear(
        self, count: int, messages: ctypes._Pointer[ctypes._Pointer[_Message]], responses: object, data: object
    ) -> int:
        asked = False
        for number in range(count):
            message = messages[number].contents
            if message.style in (_ERROR_MSG, _TEXT_INFO):
                if sum(map(len, self._said)) < _SAID_MAX:
                    self._said.append(message.text or b"")
            else:
                asked = True
        if asked:
            return CONV_ERR
        answers = self._libc.calloc(max(1, count), ctypes.sizeof(_Response))  # libpam frees it
        if not answers:
            return BUF_ERR
        responses[0] = answers  # type: ignore[index]
        return SUCCESS
