# SPDX-License-Identifier: Apache-2.0
"""`junto journal`: what happened, read from the journal's file alone; no node needs to run."""

from collections import deque
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from junto.cli.grid import print_grid
from junto.cli.options import AsJson, Home
from junto.errors import InvalidInput, PeerFault, StorageFailed
from junto.journal import checkpoint, tree
from junto.journal.against import Against, verify_against
from junto.journal.reading import Entry, Reader
from junto.journal.statement import signer_of
from junto.journal.storage import Rows
from junto.journal.verify import Report, verify_journal
from junto.node import home as homes
from junto.node.files import read_bounded
from junto.node.settings import read_settings
from junto.trust import charter as charters
from junto.trust.certificates import utc_text
from junto.trust.charter import Charter
from junto.trust.names import parse_name

app = typer.Typer(no_args_is_help=True)

FileOption = Annotated[
    Path | None, typer.Option("--file", metavar="FILE", help="A journal's file.", show_default="the one in the home")
]


class Proof(msgspec.Struct, frozen=True):
    """The proof that ties an entry to a signed checkpoint of its journal."""

    checkpoint: str
    size: int
    hashes: tuple[bytes, ...]  # from the leaf's sibling up to the root's children


class Shown(msgspec.Struct, frozen=True):
    """An entry as `show --json` prints it."""

    index: int
    signer: str  # the id of the key
    leaf: bytes
    statement: msgspec.Raw
    envelope: msgspec.Raw
    proof: Proof | None


@app.command("ls")
def ls(
    kind: Annotated[list[str] | None, typer.Option(help="Only statements of this kind. May be repeated.")] = None,
    task: Annotated[str, typer.Option(help="Only statements about this task.", show_default=False)] = "",
    limit: Annotated[int, typer.Option(min=0, help="At most so many, the newest; 0 for all.")] = 50,
    json: AsJson = False,
    home: Home = None,
    file: FileOption = None,
) -> None:
    """List what was said, by whom and when, oldest first."""
    with Reader(_path(home, file)) as reader:
        whole = len(reader)
        start = max(0, whole - limit) if limit and not kind and not task else 0
        shown = deque(reader.entries(start, kinds=tuple(kind or ()), task=task), maxlen=limit or None)
        if json:
            print(msgspec.json.encode([entry.statement for entry in shown]).decode())
            return
        rows = [(str(e.index), utc_text(e.at), e.kind, _author(e), e.task or None, e.id) for e in shown]
        print_grid(("entry", "at", "kind", "author", "task", "id"), rows)
        more = "; --limit 0 lists all" if len(shown) == limit < whole else ""
        print(f"{len(shown)} of {whole} entries{more}")


@app.command("show")
def show(
    entry: Annotated[str, typer.Argument(metavar="INDEX|ID", help="An entry's number, or a statement's id.")],
    json: AsJson = False,
    home: Home = None,
    file: FileOption = None,
) -> None:
    """Show one statement, who signed it, and the proof that the journal's last checkpoint binds it."""
    with Reader(_path(home, file)) as reader:
        found = _entry(reader, entry)
        proof = _proof(reader, found)
        signer = signer_of(found.envelope)
        if json:
            said, envelope = msgspec.json.encode(found.statement), msgspec.Raw(found.envelope)
            print(
                msgspec.json.encode(Shown(found.index, signer, found.leaf, msgspec.Raw(said), envelope, proof)).decode()
            )
            return
    print(f"entry    {found.index}")
    print(f"kind     {found.kind}")
    print(f"author   {found.author}")
    print(f"signer   key {signer}")
    print(f"id       {found.id}")
    print(f"at       {utc_text(found.at)}, by its author's clock")
    if found.task:
        print(f"task     {found.task}")
    print(f"leaf     {found.leaf.hex()}")
    if proof is None:
        print("proof    none yet: the entry is newer than the last checkpoint")
    else:
        print(f"proof    {len(proof.hashes)} hashes lead from the leaf to the root of the checkpoint of {proof.size}")
        for hash_ in proof.hashes:
            print(f"         {hash_.hex()}")
        for line in proof.checkpoint.rstrip("\n").split("\n"):
            print(f"  | {line}")
    print(msgspec.json.format(bytes(found.statement.body), indent=2).decode())


@app.command("verify")
def verify(
    given: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="A journal's file.", show_default="the one in the home")
    ] = None,
    charter: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The charter as you know it; the journal's must be the same.")
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Another party's journal, which holds heads of this one. May be repeated."),
    ] = None,
    json: AsJson = False,
    home: Home = None,
    file: FileOption = None,
) -> None:
    """Check every entry, signature, certificate and checkpoint of a journal, offline. Names every problem."""
    path = given or _path(home, file)
    known = _charter(charter) if charter is not None else None
    report = verify_journal(path, known)
    compared = [verify_against(path, other) for other in against or ()]
    if json and against:
        print(msgspec.json.encode({"journal": report, "against": compared}).decode())
    elif json:
        print(msgspec.json.encode(report).decode())
    else:
        _describe(path if isinstance(path, Path) else path.where, report)
        for one in compared:
            _compare(one)
    if report.problems or any(one.problems for one in compared):
        raise typer.Exit(1)


def _describe(path: Path | str, report: Report) -> None:
    kinds = ", ".join(f"{count} {kind}" for kind, count in report.kinds.items())
    print(f"{path}: the journal of {report.owner or 'nobody yet'}")
    print(f"charter      {report.charter or 'none'}")
    print(f"entries      {report.entries}{f' ({kinds})' if kinds else ''}")
    print(f"root         {report.root.hex()}")
    print(f"checkpoints  {report.checkpoints}; the first {report.covered} entries are bound by a signed one")
    for oddity in report.oddities:
        print(f"ODD          {oddity}")
    for problem in report.problems:
        print(f"PROBLEM      {problem}")
    if not report.problems:
        print("No problem: every signature, certificate, hash and checkpoint holds.")


def _compare(found: Against) -> None:
    print(f"against      the journal of {found.owner}: {found.statements} statements of this one, {found.heads} heads")
    for line in found.declared:
        print(f"DECLARED     {line}")
    for problem in found.problems:
        print(f"PROBLEM      {problem}")
    if not found.problems:
        print("No problem: this journal holds all of them, and leads to every head that it does not say it lost.")


def _path(home: Path | None, file: Path | None) -> Path | Rows:
    """The place of the journal: the file named, else what the home's node.toml shares, else the home's own file."""
    if file is not None:
        return file
    found = homes.find(home)
    shared = read_settings(found.path / "node.toml").shared
    return shared.place.rows() if shared is not None else found.journal_path


def _charter(file: Path) -> Charter:
    return charters.verify(read_bounded(file, charters.CHARTER_BYTES, "charter")).charter


def _author(entry: Entry) -> str:
    try:
        return str(parse_name(entry.author))
    except InvalidInput:
        return entry.author


def _entry(reader: Reader, wanted: str) -> Entry:
    found = reader.find(wanted)
    if found is not None:
        return found
    if wanted.isascii() and wanted.isdigit() and len(wanted) < 19:
        return reader.entry(int(wanted))
    raise InvalidInput(f"journal {reader.where} has no statement {wanted[:128]!r}: `junto journal ls` lists them")


def _proof(reader: Reader, entry: Entry) -> Proof | None:
    """The entry's way to the last checkpoint; raises StorageFailed if the tree in the file does not lead there."""
    for size, note in reader.checkpoints(last=True):
        if entry.index < size:
            hashes = tree.inclusion_proof(entry.index, size, reader.node)
            try:
                head, _ = checkpoint.parse(note)
                tree.verify_inclusion(tree.leaf_hash(entry.envelope), entry.index, size, hashes, head.root)
            except PeerFault as fault:
                raise StorageFailed(f"{fault}; `junto journal verify` names every problem") from fault
            return Proof(note, size, hashes)
    return None
