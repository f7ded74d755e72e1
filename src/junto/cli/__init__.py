# SPDX-License-Identifier: Apache-2.0
"""Decides how commands are spelled, what they print and how they end; every one-line error is printed here.

Never touches a party's data or policy: commands call the client or a party's home, as any program could.
Start at `_GROUPS`, one line per command, then the file it names; a command's libraries are imported when it runs.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, cast

import typer

from junto import __version__
from junto.errors import Cancelled, JuntoError, Refused, Unavailable

_EXIT_FAILED = 1
_EXIT_USAGE = 2
_EXIT_REFUSED = 3
_EXIT_UNAVAILABLE = 4
_EXIT_INTERRUPTED = 130

_USAGE_ERROR = cast(type[Exception], typer.BadParameter.__mro__[2])
"""`ClickException`, which typer exports under no name of its own."""


@dataclass(frozen=True, slots=True)
class _Group:
    """A command: `target` is `module:attribute`, a Typer for a group of commands or a function for a single one."""

    name: str
    target: str
    help: str


_GROUPS = (
    _Group("party", "junto.cli.party:app", "Set up this party: its keys, its address, its card for others."),
    _Group("charter", "junto.cli.charter:app", "Agree with other parties who takes part: create, sign, verify, show."),
    _Group("user", "junto.cli.user:app", "Say who may ask questions in this party's name."),
    _Group("node", "junto.cli.node:app", "Run this party's node, and see how it does."),
    _Group("doctor", "junto.cli.doctor:doctor", "Try every way to and from the other parties, and name the mend."),
    _Group("dataset", "junto.cli.dataset:app", "Publish data with its rules; list what all parties published."),
    _Group("grant", "junto.cli.grant:app", "Let a party have what the rules would refuse; take it back."),
    _Group("sql", "junto.cli.sql:sql", "Ask a joint question, see who learns what, get the answer."),
    _Group("task", "junto.cli.task:app", "Start, see and steer tasks: whom they wait for, how they ended."),
    _Group("trigger", "junto.cli.trigger:app", "Ask a question again: by the clock, for new data, after a task."),
    _Group("journal", "junto.cli.journal:app", "Read and verify what happened, offline."),
    _Group("sim", "junto.cli.sim:sim", "Simulate consortia with faults, and check what must hold."),
    _Group("demo", "junto.cli.demo:demo", "Four parties on this machine answer questions on real flights."),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0 done, 1 failed, 2 wrong usage, 3 refused by a rule, 4 a party cannot be reached or the deadline passed, 130
    interrupted. A failure is one line on standard error.
    """
    from junto.cli.screen import plain_output

    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    with plain_output():
        return _ended(given)


def _ended(given: Sequence[str]) -> int:
    """The exit code of a command; a failure has been printed."""
    try:
        code = run(given)
        sys.stdout.flush()  # a reader that has gone away shows here, not at exit
        return code
    except JuntoError as error:
        return _fail(str(error), _exit_code(error))
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", _EXIT_INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has gone: nothing can be said, and Python must not try to flush it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _EXIT_FAILED
    except _USAGE_ERROR as error:
        return _usage(error)
    except Exception as error:
        if os.environ.get("JUNTO_TRACEBACK"):
            raise
        return _fail(f"{_unexpected(error)} (JUNTO_TRACEBACK=1 shows where)", _EXIT_FAILED)


def run(arguments: Sequence[str]) -> int:
    """Run one command in this process, for programs that type commands. Raises what the command raises."""
    command = typer.main.get_command(_application(arguments[0]))
    return command.main(list(arguments), prog_name="junto", standalone_mode=False) or 0


def _application(wanted: str) -> typer.Typer:
    """The command tree, with only the wanted group's module imported; the others show their help line."""
    app = typer.Typer(
        help="Organisations that will not hand over their data compute one answer together.",
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for group in _GROUPS:
        if group.name != wanted:
            app.command(group.name, help=group.help)(_elsewhere)
            continue
        module, _, attribute = group.target.partition(":")
        target = getattr(import_module(module), attribute)
        if isinstance(target, typer.Typer):
            app.add_typer(target, name=group.name, help=group.help)
        else:
            app.command(group.name)(target)
    return app


def _show_version(asked: bool) -> None:
    if asked:
        print(f"junto {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Options before the command; each acts by itself."""


def _elsewhere() -> None:
    """Stands for a command that was not asked for."""


def _exit_code(error: JuntoError) -> int:
    match error:
        case Refused():
            return _EXIT_REFUSED
        case Unavailable():
            return _EXIT_UNAVAILABLE
        case Cancelled():
            return _EXIT_INTERRUPTED
        case _:
            return _EXIT_FAILED


def _fail(message: str, code: int) -> int:
    parts = [" ".join(part.split()) for part in message.splitlines()]  # several parties may each have said one
    print(f"junto: {'; '.join(filter(None, parts))}", file=sys.stderr)
    return code


def _usage(error: Exception) -> int:
    """One line for a mistyped command. An empty message means that the help was asked for and has been printed."""
    message = str(getattr(error, "message", ""))
    context = getattr(error, "ctx", None)
    if "Usage:" in message:
        print(message)
        return _EXIT_USAGE
    described = str(error.format_message()) if hasattr(error, "format_message") else message
    if not described.strip():
        return _EXIT_USAGE
    path = context.command_path if context is not None else "junto"
    return _fail(f"{described.rstrip('.')} ({path} --help)", _EXIT_USAGE)


def _unexpected(error: Exception) -> str:
    """The text for an error that is none of ours: an operating system's reason, else only the error's kind."""
    if isinstance(error, OSError):
        where = f" {error.filename}" if error.filename else ""
        return f"{(error.strerror or type(error).__name__).lower()}{where}"
    return f"unexpected {type(error).__name__}; please report it"
