# SPDX-License-Identifier: Apache-2.0
"""Writes docs/cli.md from the commands themselves; with --check, says whether it is out of date and writes nothing.

Every sentence is the one that `--help` prints: a command's help is where its reference is written.
"""

import sys
from collections.abc import Iterator
from enum import Enum
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import typer

from junto.cli import _GROUPS

REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"

_HEAD = """\
<!-- Written by `make docs` from the commands' own help; change that, not this. -->

# The command line

Every command ends with a code: 0 done, 1 failed, 2 wrong usage, 3 refused by a rule, 4 a party cannot be reached or the
deadline passed, 130 interrupted. A failure is one line on standard error. `--help` at any command prints what is here.

Commands that ask a node find it through `--profile`, else `--home`, else `$JUNTO_HOME`, else the only party under
`~/.junto`. `JUNTO_TRACEBACK=1` shows where an unexpected error arose.
"""


class Parameter(Protocol):
    """What is read of an option or argument; every typer so far has these."""

    name: str
    opts: list[str]
    secondary_opts: list[str]
    required: bool
    default: object
    nargs: int
    metavar: str | None
    envvar: str | None
    help: str | None
    show_default: bool | str


class Command(Protocol):
    """What is read of a command."""

    help: str | None
    params: list[Parameter]


def reference() -> str:
    """The whole document."""
    parts = [_HEAD]
    for group in _GROUPS:
        module, _, attribute = group.target.partition(":")
        if find_spec(module) is None:
            continue
        target = getattr(import_module(module), attribute)
        if isinstance(target, typer.Typer):
            parts.append(f"## junto {group.name}\n\n{group.help}\n")
            parts.extend(_commands(f"junto {group.name}", typer.main.get_command(target)))
        else:
            app = typer.Typer(add_completion=False)
            app.command(group.name)(target)
            single: Command = typer.main.get_command(app)  # type: ignore[assignment]  # typed here
            parts.append("\n".join(_section("##", f"junto {group.name}", single)))
    return "\n".join(parts)


def _commands(path: str, group: object) -> Iterator[str]:
    """The commands of a group, those of groups within it too."""
    commands: dict[str, Command] = getattr(group, "commands")  # noqa: B009  # typed here
    for name, command in commands.items():
        if hasattr(command, "commands"):
            yield from _commands(f"{path} {name}", command)
        else:
            yield "\n".join(_section("###", f"{path} {name}", command))


def _section(level: str, path: str, command: Command) -> Iterator[str]:
    arguments = [p for p in command.params if not p.opts[0].startswith("-")]
    options = [p for p in command.params if p.opts[0].startswith("-") and p.name != "help"]
    usage = [path, *(_placed(p) for p in arguments), *(f"{p.opts[0]} {_value(p)}" for p in options if p.required)]
    if any(not p.required for p in options):
        usage.append("[OPTIONS]")
    yield f"{level} {path}"
    yield ""
    yield " ".join((command.help or "").split())
    yield ""
    yield "```"
    yield " ".join(usage)
    yield "```"
    yield ""
    if command.params:
        yield from (f"- {_spelled(p)}: {_told(p)}" for p in (*arguments, *options))
        yield ""


def _placed(parameter: Parameter) -> str:
    return _value(parameter) if parameter.required else f"[{_value(parameter)}]"


def _value(parameter: Parameter) -> str:
    return parameter.metavar or parameter.name.upper().replace("_", "-")


def _spelled(parameter: Parameter) -> str:
    if not parameter.opts[0].startswith("-"):
        return f"`{_value(parameter)}`"
    flag = getattr(parameter, "is_flag", False)
    spelled = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    return spelled if flag else f"{spelled} `{_value(parameter)}`"


def _told(parameter: Parameter) -> str:
    default = parameter.default
    notes: list[str] = []
    if isinstance(default, Enum):
        notes.append(f"one of {', '.join(str(choice.value) for choice in type(default))}")
        default = default.value
    if parameter.required:
        notes.append("required")
    elif isinstance(parameter.show_default, str):
        notes.append(f"default: {parameter.show_default}")
    elif isinstance(default, int | float | str) and not isinstance(default, bool) and default != "":
        notes.append(f"default: {default}")
    if parameter.envvar:
        notes.append(f"environment: `{parameter.envvar}`")
    help = " ".join((parameter.help or "").split())
    return f"{help} ({'; '.join(notes)})" if notes else help


if __name__ == "__main__":
    text = reference()
    if "--check" in sys.argv[1:]:
        sys.exit(0 if REFERENCE.exists() and REFERENCE.read_text() == text else "docs/cli.md is out of date: make docs")
    REFERENCE.write_text(text)
