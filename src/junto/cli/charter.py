# SPDX-License-Identifier: Apache-2.0
"""`junto charter`: who takes part, signed by everyone who does."""

import time
from pathlib import Path
from typing import Annotated

import typer

from junto.cli import options
from junto.errors import InvalidInput
from junto.node import home as homes
from junto.node.files import read_bounded, write_whole
from junto.trust import charter as charters
from junto.trust.certificates import utc_text
from junto.trust.charter import SignedCharter

app = typer.Typer(no_args_is_help=True)

CharterFile = Annotated[Path, typer.Argument(metavar="FILE", help="A charter file.")]


@app.command("create")
def create(
    cards: Annotated[list[Path], typer.Argument(metavar="CARD…", help="The card of every party, yours included.")],
    name: Annotated[str, typer.Option(metavar="CONSORTIUM", help="What the consortium is called.")],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    version: Annotated[int, typer.Option(help="One more than the charter in force, if there is one.")] = 1,
    quorum: Annotated[
        int | None,
        typer.Option(help="How many parties settle a matter of all.", show_default="more than two thirds"),
    ] = None,
) -> None:
    """Write a charter from the parties' cards. It binds nobody until every party has signed it."""
    if out.exists():
        raise InvalidInput(f"{out} exists already, perhaps with signatures: choose another file")
    members = [charters.read_card(read_bounded(card, charters.CARD_BYTES, "card")) for card in cards]
    created = charters.create(members, name, time.time(), version=version, quorum=quorum)
    write_whole(out, created.encode())
    _describe(created)
    print("Compare each fingerprint with its party before you sign.")
    print(f"Next: `junto charter sign {out}` at each party, one after the other.")


@app.command("sign")
def sign(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="The charter; several copies are merged.")],
    out: Annotated[Path | None, typer.Option(help="The file to write.", show_default="the first FILE")] = None,
    home: options.Home = None,
) -> None:
    """Sign a charter for this party, and keep it: in force here once all have signed."""
    found = homes.find(home)
    merged = charters.merge([_read(file) for file in files])
    signed = charters.sign(merged, found.authority())
    found.save_charter(signed)
    target = out or files[0]
    write_whole(target, signed.encode())
    _describe(signed)
    if signed.is_in_force:
        print(f"In force for {found.party.name}. Hand {target} to any party that has no copy with all signatures.")
        if (found.path / "node.ready").exists():
            print(
                "The node that runs here goes by the charter before until it is started again: `junto node stop`, then"
            )
            print("`junto node start`. Until all parties have done so, their nodes refuse each other.")
        else:
            print("Next: `junto node start`, and `junto user add NAME` for whoever is to ask questions.")
    else:
        print(
            f"Next: `junto charter sign {target}` at {' and '.join(signed.unsigned)}, then here with what comes back."
        )


@app.command("verify")
def verify(file: CharterFile) -> None:
    """Check a charter and all signatures on it. Fails unless every party has signed."""
    signed = _read(file)
    if not signed.is_in_force:
        print(f"The signatures on it are good: {', '.join(signed.signed) or 'none yet'}.")
    charters.check_in_force(signed)
    charter = signed.charter
    print(f"In force: {charter.consortium} version {charter.version}, signed by all {len(charter.members)} parties.")


@app.command("show")
def show(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="A charter file.", show_default="this party's charter")
    ] = None,
    home: options.Home = None,
) -> None:
    """Show a charter: its parties, their addresses and fingerprints, and who has signed."""
    if file is not None:
        _describe(_read(file))
        return
    found = homes.find(home)
    proposed = found.proposed_charter()
    if proposed is None:
        _describe(found.signed_charter())
        return
    _describe(proposed)
    print(f"It is proposed; {' and '.join(proposed.unsigned)} must sign it before it is in force.")


def _read(file: Path) -> SignedCharter:
    return charters.verify(read_bounded(file, charters.CHARTER_BYTES, "charter"))


def _describe(signed: SignedCharter) -> None:
    charter = signed.charter
    print(f"{charter.consortium} version {charter.version}, created {utc_text(charter.created.timestamp())}")
    print(f"digest {charter.digest}, quorum {charter.quorum} of {len(charter.members)}")
    width = max(len(member.name) for member in charter.members)
    for member in charter.members:
        state = "signed" if member.name in signed.signed else "not signed"
        where = ", ".join(member.addresses) or "dials out only"
        print(f"  {member.name:<{width}}  {charters.fingerprint(member)}  {state:<10}  {where}")
