# SPDX-License-Identifier: Apache-2.0
"""A second home for a party: another node, which shares the first one's journal, users, data and spool.

It has a key and a certificate of its own, from the party's authority, an address of its own and a cache of its own. The
rest are links into the first home's folder, so both nodes see the same users, sources and kept outputs:

    keys/spool.key, users/, data/, spool/    and notices.db, where both are on one machine

Both homes' `node.toml` name the shared journal, both `party.toml` all addresses.
"""

import secrets
import shutil
import tempfile
from pathlib import Path

import msgspec

from junto.errors import InvalidInput, StorageFailed
from junto.journal.copying import MOVED, move
from junto.journal.places import SqlitePlace, place_at
from junto.node import home as homes
from junto.node.files import in_words, read_bounded, sync_folder, write_whole
from junto.node.home import Home
from junto.node.settings import read_settings
from junto.trust import charter as charters
from junto.trust.names import check_name, parse_address
from junto.types import NodeId

_COPIED = ("keys/authority.key", "keys/authority.pem")  # the key, if the first home has it
_CHARTERS = ("charter.json", "charter.proposed.json")
_LINKED = ("users", "data", "spool", "keys/spool.key")


def join(first: Home, path: Path, node: NodeId, listen: str, addresses: tuple[str, ...], store: str) -> Home:
    """A home for another node of the first home's party. It appears whole or not at all.

    addresses: what others dial to reach it. store: where the journal is shared, as `[ha] store` has it.
    The first home then names that store and those addresses too; a node that runs there has to be started again. Into
    a database its journal is moved, for which its node must not run.
    Raises InvalidInput, StorageFailed.
    """
    check_name("node", node)
    place = place_at(store)
    before = first.party
    if node == before.node:
        raise InvalidInput(f"{first.path} is the home of {before.name}/{node} itself: give the new node another name")
    if path.exists():
        raise InvalidInput(f"{path} exists already: choose another folder with --home")
    known = read_settings(first.path / "node.toml").shared
    if known is not None and known.place != place:
        raise InvalidInput(f"{first.path / 'node.toml'} names another store in [ha]: give that one with --store")
    together = tuple(dict.fromkeys((*before.addresses, *(str(parse_address(text)) for text in addresses))))
    charters.check_member(msgspec.structs.replace(first.member(), addresses=together))
    described = msgspec.structs.replace(before, node=node, listen=str(parse_address(listen)), addresses=together)
    linked = (*_LINKED, "notices.db") if isinstance(place, SqlitePlace) else _LINKED
    if not isinstance(place, SqlitePlace) and first.journal_path.exists():
        move(first.journal_path, place.storage(None))
    spool_key = first.path / "keys" / "spool.key"
    if not spool_key.exists():
        write_whole(spool_key, secrets.token_bytes(32), private=True)
    if known is None:
        _say_shared(first.path / "node.toml", store)
    write_whole(first.path / "party.toml", homes.described(msgspec.structs.replace(before, addresses=together)))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            _fill(Home(beside, described), first, linked)
            beside.replace(path)
            sync_folder(path.parent)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise StorageFailed(f"cannot create {path}: {in_words(error)}; nothing was left behind") from error
    made = Home(path, described)
    made.write_profiles()
    return made


def check_alone(home: Home) -> None:
    """Raise InvalidInput if a home whose journal is shared is about to begin one of its own."""
    settings = home.path / "node.toml"
    if home.spool_path.is_symlink():
        raise InvalidInput(
            f"{home.path} is the home of a further node of {home.party.name}, and {settings} does not say "
            f"where their journal is: put back [ha] with its store, as in the first home"
        )
    moved = home.journal_path.with_name(home.journal_path.name + MOVED)
    if moved.exists() and not home.journal_path.exists():
        raise InvalidInput(
            f"the journal of {home.path} was moved to a database, and {settings} does not say to which: put back [ha] "
            f"with its store"
        )


def _fill(made: Home, first: Home, linked: tuple[str, ...]) -> None:
    for folder in ("keys", "cache"):
        (made.path / folder).mkdir(mode=0o700)
    for name in _COPIED[0 if first.has_authority else 1 :]:
        write_whole(made.path / name, read_bounded(first.path / name, 64 << 10, name), private=name.endswith(".key"))
    write_whole(made.path / "party.toml", homes.described(made.party))
    for name in (*_CHARTERS, "node.toml"):
        if (first.path / name).exists():
            write_whole(made.path / name, (first.path / name).read_bytes())
    for name in linked:
        (made.path / name).symlink_to((first.path / name).resolve())


def _say_shared(settings: Path, store: str) -> None:
    before = settings.read_text(encoding="utf-8") if settings.exists() else ""
    gap = "\n" if before else ""
    write_whole(settings, f'{before}{gap}[ha]\nstore = "{store}"\n'.encode())
