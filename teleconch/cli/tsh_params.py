"""What tsh's click commands share: the global flags, before or after the verb, and what they mean."""

from __future__ import annotations

from typing import Any

import click

from teleconch.cli import boundary
from teleconch.cli.tsh_flags import GLOBAL_FLAGS, Flag, Given, without_effect
from teleconch.client.address import ProxyAddress, parse_proxy
from teleconch.client.profile import Profile, Profiles, home
from teleconch.errors import BadParameter, NotFound
from teleconch.resources.pin import check_pin

_META = "teleconch.tsh"

LATER = {
    "join": "",
    "play": "",
    "sessions": "",
    "bench": "",
    "clusters": ": `tsh status` shows the cluster that you are logged in to",
}
"""Verbs that users of Teleport 4.2 will try, and what to do instead."""


def given() -> Given:
    """The global flags of this run."""
    found: Given = click.get_current_context().find_root().meta.setdefault(_META, Given())
    return found


def as_option(flag: Flag, callback: Any = None, expose: bool = True) -> click.Option:
    """A flag of the table as a click option."""
    return click.Option(
        [*flag.names, flag.field],
        metavar=flag.value,
        is_flag=flag.value is None,
        expose_value=expose,
        callback=callback,
        help=flag.help,
        hidden=not flag.help,
    )


def _note(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value and parameter.name:
        context.find_root().meta.setdefault(_META, Given()).values[parameter.name] = value


def _global_options() -> list[click.Parameter]:
    def nothing() -> None:
        pass

    boundary.debug_option(nothing)
    options: list[click.Parameter] = [
        as_option(flag, _note, expose=False) for flag in GLOBAL_FLAGS if flag.field != "debug"
    ]
    return [*options, *getattr(nothing, "__click_params__", [])]


class UserCommand(click.Command):
    """A verb that accepts the global flags too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        taken = {name for parameter in self.params for name in parameter.opts}
        self.params += [option for option in _global_options() if not taken.intersection(option.opts)]

    def invoke(self, context: click.Context) -> Any:
        for sentence in without_effect(given()):
            boundary.say_warning(sentence)
        return super().invoke(context)


class UserGroup(click.Group):
    """The program: global flags, then a verb that is a :class:`UserCommand`."""

    command_class = UserCommand

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _global_options()

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, but for a mistyped verb suggest what was probably meant."""
        from difflib import get_close_matches

        if args[0] in LATER:
            raise click.UsageError(f"tsh {args[0]} is not available yet{LATER[args[0]]}.", context)
        if self.get_command(context, args[0]) is None and not args[0].startswith("-"):
            close = get_close_matches(args[0], self.list_commands(context), n=2)
            hint = f" Did you mean {' or '.join(close)}?" if close else ""
            raise click.UsageError(f"There is no command 'tsh {args[0]}'.{hint}", context)
        return super().resolve_command(context, args)


def profiles() -> Profiles:
    """What tsh remembers."""
    return Profiles(home())


def proxy_flag() -> ProxyAddress | None:
    """``--proxy``, if it was given. BadParameter."""
    text = given().text("proxy")
    return parse_proxy(text) if text else None


def pin_flag() -> str | None:
    """``--ca-pin``, if it was given. BadParameter."""
    text = given().ca_pin
    try:
        return check_pin(text) if text else None
    except BadParameter as error:
        raise BadParameter(f"--ca-pin={text}: {error}") from None


def known_profile(found: Profiles, proxy: ProxyAddress | None) -> Profile | None:
    """The profile that ``--proxy`` names, or the current one, if there is one. BadParameter if several fit."""
    try:
        return found.find(proxy)
    except NotFound:
        return None


def parse_ttl(text: str) -> float:
    """The seconds in ``--ttl``: a duration or, as in Teleport, a number of minutes. BadParameter."""
    from teleconch.resources.durations import parse_duration

    seconds = float(text) * 60 if text.isascii() and text.isdecimal() and len(text) < 9 else parse_duration(text)
    if seconds < 1:
        raise BadParameter(f"--ttl={text}: a login has to last for a while, say 30m or 8h.")
    return seconds
