# SPDX-License-Identifier: Apache-2.0
"""`junto user`: who may ask questions in this party's name."""

import time
from pathlib import Path
from typing import Annotated

import typer

from junto.cli import options
from junto.errors import InvalidInput
from junto.node import home as homes
from junto.node.files import write_whole
from junto.trust import profile as profiles
from junto.trust.certificates import utc_text
from junto.types import seconds_of

app = typer.Typer(no_args_is_help=True)

User = Annotated[str, typer.Argument(metavar="NAME", help="The user's name.")]


@app.command("add")
def add(
    name: User,
    operator: Annotated[bool, typer.Option("--operator", help="May also publish, withdraw, grant and revoke.")] = False,
    lifetime: Annotated[str, typer.Option(help="How long the certificate lasts: 12h, 30d.")] = "90d",
    home: options.Home = None,
) -> None:
    """Let a user ask questions through this party's node. Adding one again renews it, and ends its old profile."""
    found = homes.find(home)
    try:
        seconds = seconds_of(lifetime)
    except ValueError as error:
        raise InvalidInput(f"--lifetime {error}") from None
    identity = found.add_user(name, time.time(), seconds, operator=operator)
    may = "ask, publish and grant" if operator else "ask"
    print(f"{identity.name} may {may} until {utc_text(identity.expires)}.")
    print('Next: `junto sql "SELECT …"` here, or `junto user export` for another machine.')


@app.command("ls")
def ls(home: options.Home = None) -> None:
    """List this party's users."""
    found = homes.find(home)
    names = found.user_names()
    for name in names:
        identity = found.profile(name).identity()
        role = ", operator" if found.is_operator(name) else ""
        print(f"{name}  until {utc_text(identity.expires)}{role}")
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
