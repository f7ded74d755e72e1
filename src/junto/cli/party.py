# SPDX-License-Identifier: Apache-2.0
"""`junto party`: an organisation's keys, its address, and the card it hands to the others."""

import time
from pathlib import Path
from typing import Annotated

import typer

from junto.cli import options
from junto.errors import InvalidInput
from junto.node import authority
from junto.node import home as homes
from junto.node.files import read_bounded, write_whole
from junto.node.home import Home
from junto.trust.certificates import utc_text
from junto.trust.charter import fingerprint, read_card
from junto.trust.names import DEFAULT_PORT, check_name, parse_address
from junto.types import NodeId, PartyId, seconds_of

app = typer.Typer(no_args_is_help=True)


@app.command("create")
def create(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="What the others call you: lower-case letters, digits, hyphens.")
    ],
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where the node listens; 0.0.0.0 for every interface.")
    ] = f"0.0.0.0:{DEFAULT_PORT}",
    advertise: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST:PORT", help="Where the others dial it, if not where it listens. May be repeated."),
    ] = None,
    dial_only: Annotated[
        bool, typer.Option("--dial-only", help="The others cannot dial this party; it dials them.")
    ] = False,
    node: Annotated[str, typer.Option(help="The name of this node within the party.")] = "node-1",
    home: Annotated[
        Path | None, typer.Option(help="The folder to make.", envvar="JUNTO_HOME", show_default="~/.junto/NAME")
    ] = None,
) -> None:
    """Make this party's keys and folder. Private keys never leave it."""
    party = PartyId(check_name("party", name))
    made = homes.create(
        homes.new_home_path(party, home),
        party,
        listen,
        time.time(),
        node=NodeId(node),
        addresses=_addresses(listen, advertise or [], dial_only=dial_only),
    )
    print(f"{party} lives in {made.path}; fingerprint {fingerprint(read_card(made.card()))}")
    print("Next: `junto party card --out FILE` writes the card to hand to the other parties.")


@app.command("join")
def join(
    node: Annotated[str, typer.Argument(metavar="NODE", help="The new node's name, such as node-2.")],
    first: Annotated[Path, typer.Option("--from", metavar="HOME", help="The home of the node that the party has.")],
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where the new node listens; 0.0.0.0 for every interface.")
    ] = f"0.0.0.0:{DEFAULT_PORT}",
    advertise: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST:PORT", help="Where the others dial it, if not where it listens. May be repeated."),
    ] = None,
    dial_only: Annotated[
        bool, typer.Option("--dial-only", help="The others cannot dial this node; it dials them.")
    ] = False,
    store: Annotated[
        str, typer.Option(metavar="STORE", help="Where both keep their journal.", show_default="the first one's file")
    ] = "",
    home: Annotated[Path | None, typer.Option(help="The folder to make.", show_default="~/.junto/PARTY-NODE")] = None,
) -> None:
    """Make a second node for a party: one acts, the other takes over when it dies. See docs/operating.md."""
    from junto.node.join import join as join_home

    found = homes.load(first.absolute())
    party = found.party.name
    addresses = _addresses(listen, advertise or [], dial_only=dial_only)
    path = home or homes.homes_folder() / f"{party}-{node}"
    made = join_home(found, path, NodeId(node), listen, addresses, store or f"sqlite:{found.journal_path.resolve()}")
    print(f"{party}/{node} lives in {made.path}; it shares journal, users, data and spool with {found.path}")
    print(f"Next: start {party}/{found.party.node} again, then this one: `junto node start --home {made.path}`.")
    unknown = _unknown_addresses(made)
    if unknown:
        print(f"The charter does not name {', '.join(unknown)}: until the next version does, the others are dialled")
        print(f"by the new node alone. `junto party card --out FILE --home {made.path}` writes the card for it.")


@app.command("card")
def card(
    out: Annotated[Path | None, typer.Option(help="The file to write.", show_default="standard output")] = None,
    home: options.Home = None,
) -> None:
    """Write this party's card: its name, authority certificate and addresses. Nothing in it is secret."""
    found = homes.find(home)
    data = found.card()
    if out is None:
        print(data.decode("ascii"), end="")
        return
    write_whole(out, data)
    print(f"Wrote {out}, fingerprint {fingerprint(read_card(data))}: read it to the others over the telephone.")
    print("Next: one party collects the cards: `junto charter create CARD… --name CONSORTIUM --out FILE`.")


@app.command("show")
def show(home: options.Home = None) -> None:
    """Show this party: its folder, addresses, charter and users."""
    found = homes.find(home)
    party = found.party
    print(f"party        {party.name} (node {party.node})")
    print(f"home         {found.path}")
    print(f"fingerprint  {fingerprint(found.member())}")
    kept = "its key is here" if found.has_authority else "its key is kept elsewhere"
    print(f"authority    {kept}")
    print(f"listens      {party.listen}")
    print(f"others dial  {', '.join(party.addresses) or 'nothing: this party dials out only'}")
    print(f"charter      {_charter(found)}")
    print(f"users        {', '.join(found.user_names()) or 'none; `junto user add NAME` makes one'}")


@app.command("move-authority")
def move_authority(
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="A new folder, best on another machine's medium.")],
    home: options.Home = None,
) -> None:
    """Take the authority's key out of the node's home, into a folder where charters are signed and users added."""
    moved = authority.move(homes.find(home), to.absolute())
    print(
        f"The authority key of {moved.party.name} is in {moved.path} alone: back it up, and keep it off this machine."
    )
    print(f"Sign charters, add users and issue certificates there, with --home {moved.path}.")
    print("The node's certificate ends within a day: next `junto party request --out FILE` here.")


@app.command("request")
def request(
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file to write.")], home: options.Home = None
) -> None:
    """Ask for this node's next certificate, over a fresh key that stays here. Nothing in the file is secret."""
    found = homes.find(home)
    write_whole(out, authority.request(found))
    print(f"Wrote {out}. Next: `junto party issue {out.name} --out FILE` where the authority's key is.")


@app.command("issue")
def issue(
    file: Annotated[Path, typer.Argument(metavar="REQUEST", help="From `junto party request`.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file to write.")],
    lifetime: Annotated[str, typer.Option(help="How long the certificate lasts: 1d, 30d.")] = "30d",
    home: options.Home = None,
) -> None:
    """Issue the certificate that a node of this party asked for, where the authority's key is."""
    found = homes.find(home)
    asked = read_bounded(file, 16 << 10, "request")
    try:
        seconds = seconds_of(lifetime)
    except ValueError as error:
        raise InvalidInput(f"--lifetime {error}") from None
    name, certificate = authority.issue(found, asked, time.time(), seconds)
    write_whole(out, certificate)
    print(f"Wrote {out}: a certificate of {name}. Next: `junto party renew {out.name}` at that node.")


@app.command("renew")
def renew(
    file: Annotated[Path, typer.Argument(metavar="CERTIFICATE", help="From `junto party issue`.")],
    home: options.Home = None,
) -> None:
    """Take an issued certificate into use, with the key of the request. A node that runs finds it by itself."""
    found = homes.find(home)
    taken = authority.take(found, read_bounded(file, 16 << 10, "certificate"), time.time())
    print(f"{taken.name} has another key and a certificate until {utc_text(taken.expires)}.")
    print("A node that runs goes over to it within ten minutes, without a pause.")


def _unknown_addresses(home: Home) -> list[str]:
    """The addresses that the charter in force, if there is one, does not have for this party."""
    try:
        named = home.charter().member(home.party.name).addresses
    except InvalidInput:
        return []
    return [address for address in home.party.addresses if address not in named]


def _charter(home: Home) -> str:
    try:
        charter = home.charter()
    except InvalidInput as error:
        return f"none in force: {error}"
    members = ", ".join(member.name for member in charter.members)
    created = utc_text(charter.created.timestamp())
    return f"{charter.consortium} version {charter.version} of {created}, in force: {members}"


def _addresses(listen: str, advertise: list[str], *, dial_only: bool) -> tuple[str, ...]:
    if dial_only and advertise:
        raise InvalidInput("--dial-only and --advertise contradict each other: give one")
    if dial_only or advertise:
        return tuple(advertise)
    address = parse_address(listen)
    if address.is_wildcard:
        raise InvalidInput(
            f"nobody can dial {address}: add --advertise HOST:{address.port} with the name or address the others reach "
            f"this machine by, or --dial-only if they cannot"
        )
    return (str(address),)
