# SPDX-License-Identifier: Apache-2.0
"""`junto user`: who may ask questions in this party's name, in which roles and for which purposes."""

import time
from pathlib import Path
from typing import Annotated

import typer

from junto.cli import options
from junto.errors import InvalidInput
from junto.node import home as homes
from junto.node.files import read_private, write_whole
from junto.trust import profile as profiles
from junto.trust.certificates import utc_text
from junto.trust.rights import Rights
from junto.types import seconds_of

app = typer.Typer(no_args_is_help=True)

User = Annotated[str, typer.Argument(metavar="NAME", help="The user's name.")]
Role = Annotated[
    list[str] | None,
    typer.Option(metavar="ROLE", help="A role by which this party's own rules may name the user; may be repeated."),
]
Purpose = Annotated[
    list[str] | None, typer.Option(metavar="PURPOSE", help="A purpose that the user may ask for; may be repeated.")
]


@app.command("add")
def add(
    name: User,
    operator: Annotated[
        bool,
        typer.Option(
            "--operator", help="May also publish, withdraw, grant and revoke, and is under no rule of this party."
        ),
    ] = False,
    role: Role = None,
    purpose: Purpose = None,
    lifetime: Annotated[str, typer.Option(help="How long the certificate lasts: 12h, 30d.")] = "90d",
    home: options.Home = None,
) -> None:
    """Let a user ask questions through this party's node. Adding one again renews it, and ends its old profile."""
    found = homes.find(home)
    try:
        seconds = seconds_of(lifetime)
    except ValueError as error:
        raise InvalidInput(f"--lifetime {error}") from None
    rights = Rights(operator, _each_once(role), _each_once(purpose))
    identity = found.add_user(name, time.time(), seconds, rights=rights)
    print(f"{identity.name} {_may(rights)} until {utc_text(identity.expires)}.")
    print('Next: `junto sql "SELECT …"` here, or `junto user export` for another machine.')


@app.command("import")
def take(
    profile: Annotated[Path, typer.Argument(metavar="PROFILE", help="From `junto user export`, where the key is.")],
    operator: Annotated[bool, typer.Option("--operator", help="The user is an operator.")] = False,
    role: Role = None,
    purpose: Purpose = None,
    home: options.Home = None,
) -> None:
    """Admit a user whose profile was made where the authority's key is kept, and say what the user may do."""
    found = homes.find(home)
    rights = Rights(operator, _each_once(role), _each_once(purpose))
    name = found.import_user(read_private(profile, profiles.PROFILE_BYTES, "profile"), rights, time.time())
    print(f"{name} {_may(rights)}.")


@app.command("change")
def change(
    name: User,
    operator: Annotated[
        bool | None, typer.Option("--operator/--no-operator", help="Whether the user is an operator.")
    ] = None,
    role: Role = None,
    no_roles: Annotated[bool, typer.Option("--no-roles", help="Take all roles away.")] = False,
    purpose: Purpose = None,
    no_purposes: Annotated[bool, typer.Option("--no-purposes", help="Take all purposes away.")] = False,
    home: options.Home = None,
) -> None:
    """Give a user other rights, from the next question on. Rights not named stay; named ones are replaced."""
    if (role and no_roles) or (purpose and no_purposes):
        raise InvalidInput("roles or purposes are given and taken away at once: leave one out")
    found = homes.find(home)
    old = found.rights(name)
    rights = Rights(
        old.operator if operator is None else operator,
        _each_once(role) if role or no_roles else old.roles,
        _each_once(purpose) if purpose or no_purposes else old.purposes,
    )
    found.change_user(name, rights)
    print(f"{found.party.name}/user/{name} {_may(rights)} from now on.")


@app.command("ls")
def ls(home: options.Home = None) -> None:
    """List this party's users and what they may do."""
    found = homes.find(home)
    names = found.user_names()
    for name in names:
        identity = found.profile(name).identity()
        print(f"{name}  until {utc_text(identity.expires)}, {_may(found.rights(name))}")
    if not names:
        print(f"{found.party.name} has no users yet: `junto user add NAME` makes one.")


@app.command("rm")
def rm(name: User, home: options.Home = None) -> None:
    """Remove a user. The node refuses its profile from now on, wherever copies are."""
    found = homes.find(home)
    found.remove_user(name)
    print(f"{found.party.name}/user/{name} is removed; the node admits it no more.")


@app.command("export")
def export(
    name: User,
    out: Annotated[Path, typer.Option(help="The file to write.")],
    home: options.Home = None,
) -> None:
    """Write a user's profile for another machine. It holds a private key: hand it over as you would a password."""
    found = homes.find(home)
    write_whole(out, profiles.encode(found.profile(name)), private=True)
    print(f'Wrote {out}. There: `junto sql --profile {out.name} "SELECT …"`, or `junto.connect(profile=…)` in Python.')


def _each_once(names: list[str] | None) -> tuple[str, ...]:
    return tuple(sorted(set(names or ())))


def _may(rights: Rights) -> str:
    what = "may ask, publish and grant" if rights.operator else "may ask under the rules"
    roles = f", as {', '.join('@' + role for role in rights.roles)}" if rights.roles else ""
    purposes = f", for {' or '.join(rights.purposes)}" if rights.purposes and not rights.operator else ""
    return what + roles + purposes
