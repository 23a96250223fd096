"""``-o`` of ``tsh ssh`` and ``tsh scp``: the options of OpenSSH's client (ssh_config(5)) that have a meaning here."""

from __future__ import annotations

import re
from typing import Final

from teleconch.cli.tsh_flags import Given, WrongUsage

_YES: Final = {"yes": True, "true": True, "no": False, "false": False}
_NOTHING: Final = {
    *("batchmode", "identitiesonly", "passwordauthentication", "kbdinteractiveauthentication", "pubkeyauthentication"),
    *("preferredauthentications", "tcpkeepalive", "controlpersist", "controlmaster", "controlpath"),
    *("userknownhostsfile", "globalknownhostsfile", "connecttimeout", "serveraliveinterval", "serveralivecountmax"),
    *("canonicalizehostname", "hashknownhosts", "checkhostip", "updatehostkeys", "addressfamily", "ipqos"),
}
"""True of tsh whatever they say: it asks for nothing, waits 30 s, and knows hosts by their certificates."""
_NO: Final = {
    *("permitlocalcommand", "forwardx11", "forwardx11trusted", "compression", "enableescapecommandline"),
    *("gssapiauthentication", "gssapidelegatecredentials"),
}
"""True of tsh where they say no."""
_VALUES: Final = {"port": "port", "user": "login"}
_LISTS: Final = {"localforward": "forward", "remoteforward": "remote_forward", "dynamicforward": "dynamic_forward"}
_ENVIRONMENT: Final = {"sendenv": "send_env", "setenv": "set_env"}
_SWITCHES: Final = {
    "forwardagent": "forward_agent",
    "addkeystoagent": "add_keys",
    "exitonforwardfailure": "exit_on_failure",
    "clearallforwardings": "clear_forwards",
    "gatewayports": "gateway_ports",
    "stdinnull": "no_input",
    "forkafterauthentication": "background",
}
_ONE_VALUE: Final = {
    *("sessiontype", "requesttty", "loglevel", "stricthostkeychecking", "escapechar"),
    *(*_VALUES, *_SWITCHES, *_NO, *_LISTS),
}
_COMMANDS: Final = {"remotecommand", "proxycommand", "localcommand", "knownhostscommand"}
"""Their value is the rest of the line, as it stands."""
_LINE: Final = re.compile(r"\s*(?P<name>[A-Za-z0-9]+)(?:[ \t]*=|[ \t]+|$)[ \t]*(?P<rest>.*)", re.DOTALL)
_LEVELS: Final = ("quiet", "fatal", "error", "info", "verbose", "debug", "debug1", "debug2", "debug3")


def apply_options(given: Given) -> tuple[str, ...]:
    """Set what ``-o`` says as if by the equivalent flags; flags win. Returns warnings. WrongUsage."""
    if given.escape_character:
        given.values["escape"] = _escape(given.escape_character, f"-e {given.escape_character}")
    warnings: list[str] = []
    for text in given.option or ():
        warning = _apply(given, *_split(text), text)
        if warning:
            warnings.append(warning)
    if given.clear_forwards:
        for field in _LISTS.values():
            given.values.pop(field, None)
    return tuple(warnings)


def _split(text: str) -> tuple[str, str, list[str]]:
    """Split a line of ssh_config(5) into the name, the text after it as written, and that text as words. WrongUsage.

    As in OpenSSH, blanks or one ``=`` follow the name, words may have quotes and backslashes, and ``#`` begins a
    comment.
    """
    match = _LINE.fullmatch(text)
    if match is None:
        raise WrongUsage(f"-o {text}: give an option as NAME=VALUE.")
    name, rest = match["name"], match["rest"].rstrip()
    return name, rest, [] if name.lower() in _COMMANDS else _words(rest, text)


def _words(rest: str, text: str) -> list[str]:
    words: list[str] = []
    at = 0
    while True:
        at += len(rest[at:]) - len(rest[at:].lstrip(" \t"))
        if at == len(rest) or rest[at] == "#":
            return words
        word, at = _word(rest, at, text)
        words.append(word)


def _word(rest: str, at: int, text: str) -> tuple[str, int]:
    """The word at ``at``, and where it ends."""
    word, quote = "", ""
    while at < len(rest):
        letter, following = rest[at], rest[at + 1 : at + 2]
        if letter == "\\" and following and (following in "\"'\\" or (following == " " and not quote)):
            word += following
            at += 1
        elif not quote and letter in " \t":
            break
        elif not quote and letter in "\"'":
            quote = letter
        elif quote and letter == quote:
            quote = ""
        else:
            word += letter
        at += 1
    if quote:
        raise WrongUsage(f"-o {text}: a quotation mark has no other end.")
    return word, at


def _apply(given: Given, name: str, rest: str, words: list[str], text: str) -> str | None:
    key = name.lower()
    if key == "remotecommand":
        if not rest:
            raise WrongUsage(f"-o {text}: give an option as NAME=VALUE.")
        given.values.setdefault("remote_command", None if rest.lower() == "none" else rest)
        return None
    if key in _ENVIRONMENT:
        given.values[_ENVIRONMENT[key]] = [*given.values.get(_ENVIRONMENT[key], ()), *words]
        return None
    if key in _COMMANDS:
        return f"-o {text} has no effect: tsh does not know {name}."
    if not words or not words[0]:
        raise WrongUsage(f"-o {text}: give an option as NAME=VALUE.")
    if key in _LISTS and len(words) <= 2:
        given.values[_LISTS[key]] = [*given.values.get(_LISTS[key], ()), ":".join(words)]
        return None
    if key in _NOTHING:
        return None
    if len(words) > 1 and key in _ONE_VALUE:
        raise WrongUsage(f"-o {text}: {name} takes one value; put quotes around blanks.")
    return _apply_word(given, name, words[0], text)


def _apply_word(given: Given, name: str, value: str, text: str) -> str | None:
    key, word = name.lower(), value.lower()
    if key in _VALUES:
        given.values.setdefault(_VALUES[key], value)
    elif key == "sessiontype" and word in ("none", "subsystem", "default"):
        given.values.setdefault({"none": "no_exec", "subsystem": "subsystem"}.get(word, "nothing"), True)
    elif key in _SWITCHES:
        if word not in _YES:
            return f"-o {text}: {name} is yes or no here; it is ignored."
        given.values.setdefault(_SWITCHES[key], _YES[word])
    elif key == "requesttty":
        return _request_tty(given, word, text)
    elif key == "loglevel":
        if word not in _LEVELS:
            raise WrongUsage(f"-o {text}: levels are {', '.join(_LEVELS).upper()}.")
        given.values["quiet" if word in _LEVELS[:3] else "debug" if word.startswith("debug") else "loud"] = True
    elif key == "stricthostkeychecking":
        if _YES.get(word) is False or word == "off":
            return f"-o {text} has no effect: nodes prove themselves by certificates. (--insecure checks nobody.)"
    elif key == "escapechar":
        given.values["escape"] = _escape(value, text)
    elif not (key in _NO and _YES.get(word) is False):
        return f"-o {text} has no effect: tsh does not know {name}."
    return None


def _request_tty(given: Given, word: str, text: str) -> str | None:
    if given.tty or given.no_tty:
        return None
    if word in ("force", "yes"):
        given.values["tty"] = 2 if word == "force" else 1
    elif word == "no":
        given.values["no_tty"] = True
    elif word != "auto":
        return f"-o {text}: RequestTTY is yes, no, force or auto; it is ignored."
    return None


def _escape(value: str, text: str) -> bytes:
    if value == "none":
        return b""
    if len(value) == 2 and value[0] == "^":
        return bytes((ord(value[1]) & 31,))
    if len(value) == 1 and value.isascii():
        return value.encode()
    raise WrongUsage(f"-o {text}: the escape character is one character, ^ and a letter, or none.")
