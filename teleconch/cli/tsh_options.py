"""``-o`` of ``tsh ssh`` and ``tsh scp``: the options of OpenSSH's client (ssh_config(5)) that mean something here."""

from __future__ import annotations

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
_LEVELS: Final = ("quiet", "fatal", "error", "info", "verbose", "debug", "debug1", "debug2", "debug3")


def apply_options(given: Given) -> tuple[str, ...]:
    """Put what ``-o`` says where the flags of the same meaning stand; flags win. Warnings. WrongUsage."""
    if given.escape_character:
        given.values["escape"] = _escape(given.escape_character, f"-e {given.escape_character}")
    warnings: list[str] = []
    for text in given.option or ():
        key, value = _split(text)
        warning = _apply(given, key, value, text)
        if warning:
            warnings.append(warning)
    if given.clear_forwards:
        for field in _LISTS.values():
            given.values.pop(field, None)
    return tuple(warnings)


def _split(text: str) -> tuple[str, str]:
    word = text.strip()
    end = next((at for at, letter in enumerate(word) if letter in "= \t"), len(word))
    value = word[end:].strip()
    value = value[1:].strip() if value.startswith("=") else value
    if not word[:end] or not value:
        raise WrongUsage(f"-o {text}: give an option as NAME=VALUE.")
    return word[:end], value


def _apply(given: Given, name: str, value: str, text: str) -> str | None:
    key, word = name.lower(), value.lower()
    if key in _VALUES:
        given.values.setdefault(_VALUES[key], value)
    elif key in _LISTS:
        spec = ":".join(value.split())
        given.values[_LISTS[key]] = [*given.values.get(_LISTS[key], ()), spec]
    elif key in _ENVIRONMENT:
        given.values[_ENVIRONMENT[key]] = [*given.values.get(_ENVIRONMENT[key], ()), *_words(value, text)]
    elif key == "remotecommand":
        given.values.setdefault("remote_command", None if word == "none" else value)
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
    elif key not in _NOTHING and not (key in _NO and _YES.get(word) is False):
        return f"-o {text} has no effect: tsh does not know {name}."
    return None


def _words(value: str, text: str) -> list[str]:
    import shlex

    try:
        return shlex.split(value)
    except ValueError:
        raise WrongUsage(f"-o {text}: a quotation mark has no other end.") from None


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
