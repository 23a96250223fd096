"""Where the three programs end: errors become one sentence and an exit status, never a traceback.

Use, in each program::

    @click.group(context_settings=boundary.SETTINGS)
    @boundary.debug_option                       # -d/--debug, before or after the verb if put on both
    def tctl() -> None: ...

    boundary.add_help_command(tctl)              # "tctl help [VERB]"

    @tctl.command()
    def status() -> int | None:                  # an int is the exit status, None is 0
        boundary.run_reactor(show_status)        # async def show_status(reactor); its errors are raised here

    def main() -> NoReturn:
        boundary.run(tctl, "tctl")

=======================================  ======  ==============================================
what came out of the command             status  on stderr
=======================================  ======  ==============================================
nothing, or an int                       it      nothing
``TeleconchError``, ``OSError``          1       ``ERROR:`` and its sentence
``ConfigError``                          1       ``ERROR:`` and all problems, a line each
``click.UsageError``                     2       usage, and ``ERROR:`` with what was wrong
``KeyboardInterrupt``, ``click.Abort``   130     a new line
a pipe that nobody reads any more        1       nothing
anything else                            1       ``ERROR:`` and how to report it
=======================================  ======  ==============================================

With ``-d`` the traceback goes to stderr before the sentence.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from importlib import import_module
from typing import Any, NoReturn, TypeVar

import click

from teleconch.errors import ConfigError, TeleconchError, quoted
from teleconch.text import shown

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

INTERRUPTED = 130


class Invocation:
    """What is known about this run of the program outside any one command: whether ``-d`` was given."""

    def __init__(self) -> None:
        self.debug = False


def debug_option(function: F) -> F:
    """Adds ``-d/--debug``, which is not passed to the function: call :func:`debug_wanted`."""

    def note(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
        if value:
            context.ensure_object(Invocation).debug = True

    option = click.option(
        "-d", "--debug", is_flag=True, expose_value=False, callback=note, help="Log in detail to stderr."
    )
    return option(function)


def without_effect(*names: str, value: str | None = None, why: str) -> Callable[[F], F]:
    """Adds a flag of Teleport that has no effect here: it is accepted with a warning, and the help does not show it."""

    def tell(_context: click.Context, parameter: click.Parameter, given: Any) -> None:
        if given:
            say_warning(f"{parameter.opts[-1]} has no effect: {why}.")

    return click.option(*names, is_flag=value is None, metavar=value, hidden=True, expose_value=False, callback=tell)


def debug_wanted() -> bool:
    """Whether ``-d`` was given to the running command or one of its groups."""
    return click.get_current_context().ensure_object(Invocation).debug


def imported(command: str) -> click.Command:
    """The command at ``module:attribute`` of this package, which is imported only now."""
    module, _, attribute = command.partition(":")
    found = getattr(import_module(f"teleconch.cli.{module}"), attribute)
    assert isinstance(found, click.Command)
    return found


def add_help_command(group: click.Group) -> None:
    """Gives ``group`` the verb ``help``: ``tsh help``, ``tsh help ssh``, ``tctl help users add``."""

    @group.command("help", short_help="Show help, or the help of one command.")
    @click.argument("command", nargs=-1)
    @click.pass_context
    def show_help(context: click.Context, command: tuple[str, ...]) -> None:
        """Show help, or the help of COMMAND."""
        above = context.parent
        assert above is not None
        target: click.Command = group
        for name in command:
            found = target.get_command(above, name) if isinstance(target, click.Group) else None
            if found is None:
                raise click.UsageError(f"There is no command {quoted(' '.join(command))}.", above)
            target = found
            above = click.Context(target, info_name=name, parent=above)
        click.echo(target.get_help(above))


def run(command: click.Command, program: str, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run ``command`` and leave the process as the table above says. ``arguments`` defaults to ``sys.argv[1:]``."""
    status = _outcome(command, program, arguments)
    try:
        sys.stdout.flush()
    except OSError:  # the pipe's reader has gone: keep the interpreter's own last flush quiet as well
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = status or 1
    sys.exit(status)


def run_reactor(main: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
    """Run ``main(reactor)`` on Twisted's reactor; return what it returns, raise what it raises.

    SIGINT and SIGTERM cancel it and raise :class:`KeyboardInterrupt`. Twisted's log goes to stderr with ``-d``,
    otherwise nowhere. Call it once per process: a reactor starts only once.
    """
    from twisted.internet import reactor as installed
    from twisted.internet.defer import Deferred
    from twisted.logger import globalLogBeginner, textFileLogObserver

    reactor: Any = installed
    results: list[T] = []
    errors: list[BaseException] = []
    stopping = False

    async def watched() -> None:
        try:
            results.append(await main(reactor))
        except BaseException as e:  # noqa: BLE001 -- raised again below, outside the reactor
            errors.append(e)
        if not stopping:
            reactor.stop()

    def begin() -> None:
        running = Deferred.fromCoroutine(watched())

        def interrupted() -> None:
            nonlocal stopping
            stopping = True
            if not results and not errors:
                running.cancel()
                errors[:] = [KeyboardInterrupt()]

        reactor.addSystemEventTrigger("before", "shutdown", interrupted)

    context = click.get_current_context(silent=True)
    debug = context is not None and context.ensure_object(Invocation).debug
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)] if debug else [], redirectStandardIO=False)
    reactor.callWhenRunning(begin)
    reactor.run()
    if errors:
        raise errors[0]
    return results[0]


def say_error(sentence: str) -> None:
    """Print ``ERROR: sentence`` on stderr; in red on a terminal. A peer's control characters are made harmless."""
    click.echo(f"{_coloured('ERROR:', 'red')} {_told(sentence)}", err=True)


def say_warning(sentence: str) -> None:
    """Print ``WARNING: sentence`` on stderr; in yellow on a terminal."""
    click.echo(f"{_coloured('WARNING:', 'yellow')} {_told(sentence)}", err=True)


def _outcome(command: click.Command, program: str, arguments: Sequence[str] | None) -> int:
    """Run the command and print what went wrong. Returns the exit status."""
    invocation = Invocation()
    try:
        given = None if arguments is None else list(arguments)
        result = command.main(given, program, standalone_mode=False, obj=invocation)
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else int(e.code is not None)
    except (click.Abort, KeyboardInterrupt):
        _traceback(invocation)
        return INTERRUPTED
    except click.UsageError as e:
        _say_usage(e)
        return e.exit_code
    except click.ClickException as e:
        say_error(e.format_message())
        return e.exit_code
    except ConfigError as e:
        _traceback(invocation)
        count = len(e.problems)
        say_error(f"the configuration has {count} {'error' if count == 1 else 'errors'}:\n{e}")
        return 1
    except TeleconchError as e:
        _traceback(invocation)
        say_error(str(e))
        return 1
    except BrokenPipeError:
        return 1
    except OSError as e:
        _traceback(invocation)
        what = f"{os.fsdecode(e.filename)}: " if isinstance(e.filename, str | bytes) else ""
        say_error(f"{what}{e.strerror or e}.")
        return 1
    except Exception as e:  # noqa: BLE001 -- the last boundary: a user is told what to do, -d shows the rest
        _traceback(invocation)
        hint = "" if invocation.debug else " Run it again with -d to see where, and report that."
        say_error(f"{program} failed unexpectedly ({type(e).__name__}).{hint}")
        return 1
    return result if isinstance(result, int) else 0


def _say_usage(error: click.UsageError) -> None:
    """Print what was wrong with the command line, and where to read more; for a group without a verb, print its whole
    help."""
    if error.__class__.__name__ == "NoArgsIsHelpError":  # click 8.2 and later: the message is the help text
        click.echo(error.format_message(), err=True)
        return
    if error.ctx is not None:
        click.echo(error.ctx.get_usage(), err=True)
        click.echo(f"Try '{error.ctx.command_path} --help' for help.", err=True)
    say_error(error.format_message())


def _traceback(invocation: Invocation) -> None:
    if invocation.debug:
        import traceback

        traceback.print_exc(file=sys.stderr)


def _coloured(text: str, colour: str) -> str:
    plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb" or not sys.stderr.isatty()
    return text if plain else click.style(text, fg=colour, bold=True)


def _told(sentence: str) -> str:
    return shown(sentence, keep="\n", mark="?")
