# SPDX-License-Identifier: Apache-2.0
"""`junto grant`: let named parties have, for a time, what this party's rules would refuse."""

import time
from typing import Annotated

import msgspec
import typer

from junto.catalog.names import meant
from junto.cli.grid import print_grid
from junto.cli.options import AsJson, Home, Profile, User
from junto.client import connect
from junto.client.reply import decoded
from junto.errors import InvalidInput
from junto.link import methods
from junto.trust.allow import DEFAULT_UNITS, KINDS, Allow
from junto.trust.grants import GrantRequest, GrantState, columns_of, moment_of, moment_text
from junto.types import DatasetName, PartyId

app = typer.Typer(help="Give and take back permissions beside the rules.", no_args_is_help=True)


@app.command("give")
def give(
    dataset: Annotated[str, typer.Option(help="One of this party's datasets.")],
    columns: Annotated[list[str], typer.Option(help="Its columns, with commas between them; * for all.")],
    allow: Annotated[str, typer.Option(help=f"One of {', '.join(KINDS)}.")],
    to: Annotated[list[str], typer.Option(help="The parties that may learn it, with commas between them.")],
    until: Annotated[str, typer.Option(help="When it ends: 2026-12-31 (UTC), or from now: 30d.")],
    purpose: Annotated[list[str] | None, typer.Option(help="Only for this purpose; may be repeated.")] = None,
    begin: Annotated[str, typer.Option("--from", help="When it begins; without it, now.")] = "",
    uses: Annotated[int | None, typer.Option(help="For so many questions; without it, any number.")] = None,
    units: Annotated[int, typer.Option(help="Groups of fewer units stay hidden.")] = DEFAULT_UNITS,
    home: Home = None,
    user: User = None,
    profile: Profile = None,
    json: AsJson = False,
) -> None:
    """Let parties have columns in a form that the rules do not allow them. Prints the grant's id, to revoke it by."""
    now = time.time()
    request = GrantRequest(
        to=tuple(PartyId(party) for text in to for party in columns_of(text)),
        dataset=DatasetName(dataset),
        columns=tuple(column for text in columns for column in columns_of(text)),
        allow=_kind(allow),
        until=moment_of(until, now),
        not_before=moment_of(begin, now) if begin else None,
        purpose=tuple(purpose or ()),
        uses=uses,
        units=units,
    )
    with connect(home, user=user, profile=profile) as desk:
        reply = desk.request(methods.OPERATOR_GRANT, msgspec.json.encode(request))
        granted = decoded(reply, methods.Granted)
        owner = PartyId(desk.party)
    print(reply.decode() if json else f"grant {granted.id}: {request.sentence(owner)}")


@app.command("ls")
def ls(home: Home = None, user: User = None, profile: Profile = None, json: AsJson = False) -> None:
    """List the grants this party gave, newest first."""
    with connect(home, user=user, profile=profile) as desk:
        reply = desk.request(methods.OPERATOR_GRANTS)
        states = decoded(reply, list[GrantState])
    if json:
        print(reply.decode())
        return
    if not states:
        print("no grants given; `junto grant give` gives one")
        return
    now = time.time()
    print_grid(
        ("grant", "to", "dataset", "columns", "allow", "for", "from", "until", "used", "state"),
        (
            (
                state.grant.id,
                ", ".join(state.grant.to),
                state.grant.dataset,
                ", ".join(state.grant.columns),
                state.grant.allow,
                " or ".join(state.grant.purpose) or "anything",
                moment_text(state.grant.not_before),
                moment_text(state.grant.until),
                f"{state.used} of {state.grant.uses or 'any'}",
                _standing(state, now),
            )
            for state in sorted(states, key=lambda state: state.grant.id, reverse=True)
        ),
    )


@app.command("revoke")
def revoke(
    id: Annotated[str, typer.Argument(help="The grant's id, from `junto grant ls`.")],
    home: Home = None,
    user: User = None,
    profile: Profile = None,
) -> None:
    """Take a grant back: it serves no new question."""
    with connect(home, user=user, profile=profile) as desk:
        desk.request(methods.OPERATOR_REVOKE, msgspec.json.encode(methods.Revoke(id)))
    print(f"grant {id} is revoked; tasks already contracted end as they were agreed")


def _kind(text: str) -> Allow:
    found = next((kind for kind in KINDS if kind == text), None)
    if found is None:
        raise InvalidInput(f"--allow {text[:40]!r} is none of {', '.join(KINDS)}: {meant(text, KINDS)}")
    return found


def _standing(state: GrantState, now: float) -> str:
    grant = state.grant
    if state.revoked_at is not None:
        return f"revoked {moment_text(state.revoked_at)}"
    if now >= grant.until:
        return "ended"
    if now < grant.not_before:
        return "not begun"
    return "in force" if grant.in_force(now, state.used) else "used up"
