"""Parameters that tctl's commands share: durations, comma lists, ``-c`` and ``-d`` anywhere on the line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from teleconch.cli import boundary
from teleconch.errors import BadParameter, quoted

DEFAULT_CONFIG = "/etc/teleport.yaml"
_CONFIG = "teleconch.config"


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """Seconds (float) from ``30m``, ``1h30m``; longer than zero and at most ``longest`` seconds."""

    name = "duration"

    def __init__(self, longest: float) -> None:
        self._longest = longest

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> float:
        from teleconch.resources.durations import format_duration, parse_duration

        if isinstance(value, int | float):
            return float(value)
        try:
            seconds = parse_duration(value)
        except BadParameter as e:
            self.fail(str(e), param, context)
        if not 0 < seconds <= self._longest:
            self.fail(
                f"{quoted(value)} cannot be used here: it must be more than 0 and at most"
                f" {format_duration(self._longest)}.",
                param,
                context,
            )
        return seconds


class CommaList(click.ParamType):  # type: ignore[type-arg]
    """A tuple of the words between commas, without surrounding spaces and without empty words."""

    name = "list"

    def __init__(self, known: tuple[str, ...] = ()) -> None:
        self._known = known

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        words = tuple(dict.fromkeys(word.strip() for word in str(value).split(",") if word.strip()))
        if not words:
            self.fail("it is empty.", param, context)
        for word in words:
            if self._known and word not in self._known:
                from difflib import get_close_matches

                close = get_close_matches(word, self._known, n=1)
                hint = f"did you mean {quoted(close[0])}?" if close else f"possible: {', '.join(self._known)}."
                self.fail(f"{quoted(word)} is not known; {hint}", param, context)
        return words


def ttl_option(default: str, longest: float, help_text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option ``--ttl``; the parameter is ``ttl``, in seconds."""
    return click.option(
        "--ttl", type=Duration(longest), default=default, show_default=True, metavar="DURATION", help=help_text
    )


def config_path() -> tuple[str, bool]:
    """The configuration file, and whether it was named with ``-c``."""
    named = click.get_current_context().meta.get(_CONFIG)
    return (named, True) if named else (DEFAULT_CONFIG, False)


def _note_config(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.meta[_CONFIG] = value


def _with_global_options(command: click.Command) -> None:
    def nothing() -> None:
        pass

    config = click.option(
        "-c",
        "--config",
        metavar="FILE",
        expose_value=False,
        callback=_note_config,
        help=f"The auth server's configuration file.  [default: {DEFAULT_CONFIG}]",
    )
    command.params += reversed(getattr(boundary.debug_option(config(nothing)), "__click_params__", []))


class AdminCommand(click.Command):
    """A command that takes ``-c`` and ``-d`` itself, so they may stand before or after the verb."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _with_global_options(self)


class AdminGroup(click.Group):
    """A noun or the program itself, with verbs that are :class:`AdminCommand`."""

    command_class = AdminCommand
    group_class = type

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _with_global_options(self)

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, but for a mistyped verb suggest what was probably meant."""
        from difflib import get_close_matches

        name = args[0]
        if self.get_command(context, name) is None and not name.startswith("-"):
            close = get_close_matches(name, self.list_commands(context), n=2)
            hint = f" Did you mean {' or '.join(close)}?" if close else ""
            raise click.UsageError(f"There is no command '{context.command_path} {name}'.{hint}", context)
        return super().resolve_command(context, args)
