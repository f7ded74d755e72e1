# SPDX-License-Identifier: Apache-2.0
"""Offline verification: what a journal's file alone proves, and every place where it does not hold.

The walk trusts nothing in the file but the charter in its first entry, and that only if every member signed it; an
auditor who has the charter from elsewhere passes it in. From the charter follow the certificates, from these the keys,
from the keys the signatures of entries and checkpoints; from the entries follow the tree and its roots.

What it cannot show: that a journal was cut back to an earlier checkpoint together with all later ones, that entries
were cut off that no checkpoint covers yet, or that its own party wrote it anew and signed it again. For that the
journal of another party is needed: see `against.py`.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from junto.errors import InvalidInput, JuntoError, PeerFault, StorageFailed
from junto.journal import checkpoint, tree
from junto.journal.heads import GAP
from junto.journal.reading import Entry, Reader
from junto.journal.statement import (
    CERTIFICATE,
    CHARTER,
    SKEW_SECONDS,
    CharterBody,
    Head,
    KeyRing,
    Statement,
    body_of,
    open_statement,
    read_statement,
)
from junto.journal.storage import Rows
from junto.journal.store import CHECKPOINT_ENTRIES
from junto.trust import charter as charters
from junto.trust.charter import Charter
from junto.trust.names import Name, parse_name
from junto.types import Digest

_FRONTIERS = 8192  # a statement is written at most so many entries after the head that it holds
_UNREADABLE_ENTRIES = 100  # after so many the walk ends


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that does not hold; `index` is the entry's, or None if it concerns the whole."""

    index: int | None
    what: str

    def __str__(self) -> str:
        return self.what if self.index is None else f"entry {self.index}: {self.what}"


@dataclass(frozen=True, slots=True)
class Report:
    """The contents of a journal, and what they prove."""

    owner: str  # whose journal: the node's URI name
    charter: Digest | None  # of the charter in force at the end
    entries: int
    kinds: dict[str, int]
    root: bytes
    checkpoints: int
    covered: int  # how many entries a signed checkpoint binds
    problems: tuple[Problem, ...]
    oddities: tuple[Problem, ...]  # what does not speak against the journal: a clock that was set back


@dataclass(slots=True)
class _Walk:
    """The knowledge after the entries read so far."""

    problems: list[Problem] = field(default_factory=list)
    oddities: list[Problem] = field(default_factory=list)
    keys: KeyRing = field(default_factory=KeyRing)
    charter: Charter | None = None
    owner: Name | None = None
    kinds: Counter[str] = field(default_factory=Counter)
    ids: dict[str, int] = field(default_factory=dict)
    entries: int = 0
    frontier: tree.Frontier = field(default_factory=tree.Frontier)
    roots: dict[int, bytes] = field(default_factory=dict)  # at the sizes that have a checkpoint
    grown: bool = True  # no entry was found whose tree nodes do not follow
    first: bytes | None = None  # the first entry, until its author's certificate is seen
    frontiers: dict[int, tree.Frontier] = field(default_factory=lambda: {0: tree.Frontier()})  # of late, by size
    strange: dict[int, Head] = field(default_factory=dict)  # own entries whose heads are of another history
    last_own: dict[str, tuple[int, float]] = field(default_factory=dict)  # by node of the owner's party

    def note(self, index: int | None, what: str | JuntoError) -> None:
        self.problems.append(Problem(index, str(what)))


def verify_journal(
    place: Path | Rows, charter: Charter | None = None, progress: Callable[[int], None] | None = None
) -> Report:
    """The report on the journal in the file, with every problem found; none means that it proves all it says.

    place: its file, or a connection to where else it lies. It may hold statements of several nodes of one party.
    charter: as the auditor knows it; without it, the journal's own is believed if all its members signed it.
    progress: called with the number of entries read, now and then.
    Raises InvalidInput if there is no journal at the path or it is of a newer format.
    """
    walk = _Walk()
    with Reader(place) as reader:
        _check_file(walk, reader)
        marks = _marks(walk, reader)
        walk.roots = dict.fromkeys(marks, b"")
        _walk_entries(walk, reader, progress)
    if walk.first is not None and walk.entries:
        walk.note(0, "nothing shows its signature good: the certificate of its author is not in the journal")
    for index, head in walk.strange.items():
        walk.note(index, f"it was written after {head.size} entries that are not those before it here")
    covered = _check_marks(walk, marks)
    _check_charter(walk, charter)
    return Report(
        owner=walk.owner.uri if walk.owner else "",
        charter=walk.charter.digest if walk.charter else None,
        entries=walk.entries,
        kinds=dict(sorted(walk.kinds.items())),
        root=walk.frontier.root,
        checkpoints=len(marks),
        covered=covered,
        problems=tuple(walk.problems),
        oddities=tuple(walk.oddities),
    )


def _check_file(walk: _Walk, reader: Reader) -> None:
    try:
        findings = reader.integrity_findings()
    except StorageFailed as error:
        walk.note(None, error)
        return
    if findings:
        walk.note(None, f"the file itself is damaged: SQLite finds {findings} faults in its tables and indexes")


def _marks(walk: _Walk, reader: Reader) -> dict[int, str]:
    """The checkpoints in the file, size → note."""
    try:
        return dict(reversed(reader.checkpoints()))
    except StorageFailed as error:
        walk.note(None, error)
        return {}


def _walk_entries(walk: _Walk, reader: Reader, progress: Callable[[int], None] | None) -> None:
    if 0 in walk.roots:
        walk.roots[0] = tree.EMPTY_ROOT
    following, unreadable = 0, 0
    while unreadable < _UNREADABLE_ENTRIES:
        try:
            for entry in reader.entries(following):
                if entry.index != following:
                    _note_gap(walk, following, entry.index)
                following = entry.index + 1
                walk.entries += 1
                _check_tree(walk, entry, reader)
                _check_statement(walk, entry)
                if progress is not None and walk.entries % 1024 == 0:
                    progress(walk.entries)
            return
        except StorageFailed as error:
            walk.note(following, f"it cannot be read: {error}")
            walk.grown = False
            following, unreadable = following + 1, unreadable + 1
    walk.note(following, f"the rest was not read, after {unreadable} entries that could not be")


def _note_gap(walk: _Walk, first: int, found: int) -> None:
    what = f"entry {first} is" if found == first + 1 else f"entries {first} to {found - 1} are"
    walk.note(found, f"{what} missing before it")
    walk.grown = False


def _check_tree(walk: _Walk, entry: Entry, reader: Reader) -> None:
    leaf = tree.leaf_hash(entry.envelope)
    if leaf != entry.leaf:
        walk.note(entry.index, "its bytes were changed: their hash is not the leaf that the tree holds")
    # Going on with the leaf the tree holds tells a changed entry from changed entries everywhere behind it.
    walk.frontier, completed = walk.frontier.appended(entry.leaf)
    if walk.grown and len(completed) > 1 and reader.completed(entry.index) != completed:
        walk.note(
            entry.index, "its tree nodes do not follow from the entries up to it: some were moved, put in or removed"
        )
        walk.grown = False
    walk.frontiers[walk.frontier.size] = walk.frontier
    if len(walk.frontiers) > _FRONTIERS:
        walk.frontiers.pop(next(iter(walk.frontiers)))
    if walk.frontier.size in walk.roots:
        walk.roots[walk.frontier.size] = walk.frontier.root


def _check_statement(walk: _Walk, entry: Entry) -> None:
    try:
        statement = read_statement(entry.envelope)
    except InvalidInput as error:
        walk.note(entry.index, error)
        return
    walk.kinds[statement.kind] += 1
    said = (statement.kind, statement.task, statement.author, statement.id, statement.at)
    if said != (entry.kind, entry.task, entry.author, entry.id, entry.at):
        walk.note(entry.index, "its columns are not what its envelope says")
    before = walk.ids.setdefault(statement.id, entry.index)
    if before != entry.index:
        walk.note(entry.index, f"its id {statement.id} is that of entry {before}")
    if walk.owner is None:
        walk.owner = parse_name(statement.author)
        if statement.kind != CHARTER:
            walk.note(entry.index, f"it is a {statement.kind}; a journal begins with its charter")
    if _is_own(walk, statement):
        _check_order(walk, entry.index, statement)
        _check_head(walk, entry.index, statement)
    _check_signature(walk, entry, statement)


def _is_own(walk: _Walk, statement: Statement) -> bool:
    """True if a node of the owner's party made the statement: one after the other writes a journal that they share."""
    owner, author = walk.owner, parse_name(statement.author)
    return owner is not None and (author.consortium, author.party) == (owner.consortium, owner.party)


def _check_order(walk: _Walk, index: int, statement: Statement) -> None:
    """The tree fixes the order of entries. A clock that was set back between two of them is an oddity, no problem."""
    place, at = walk.last_own.get(statement.author, (0, 0.0))
    if statement.at < at - SKEW_SECONDS:
        node = parse_name(statement.author).node
        what = f"it is dated {at - statement.at:.0f} s before entry {place}: the clock of node {node} was set back"
        walk.oddities.append(Problem(index, what))
    walk.last_own[statement.author] = (index, statement.at)


def _check_head(walk: _Walk, index: int, statement: Statement) -> None:
    """Each of the owner's statements holds the head of the journal that it was written into."""
    if statement.kind == GAP:  # what was lost and came back was written into another history, and that is said here
        walk.strange.clear()
    head = statement.head
    if isinstance(head, Head):
        frontier = walk.frontiers.get(head.size)
        if head.size > index or (frontier is not None and frontier.root.hex() != head.root):
            walk.strange[index] = head


def _check_signature(walk: _Walk, entry: Entry, statement: Statement) -> None:
    owns = _is_own(walk, statement)
    try:
        if statement.kind == CHARTER and owns:
            _take_charter(walk, statement)
        if walk.entries == 1:
            walk.first = entry.envelope
            return
        if statement.kind == CERTIFICATE and walk.charter is None:
            raise PeerFault("its certificate cannot be checked: the journal holds no charter in force before it")
        open_statement(entry.envelope, walk.keys, walk.charter)
    except (InvalidInput, PeerFault) as error:
        walk.note(entry.index, error)
    if walk.first is not None and owns and statement.kind == CERTIFICATE:
        first, walk.first = walk.first, None
        try:
            open_statement(first, walk.keys)
        except (InvalidInput, PeerFault) as error:
            walk.note(0, error)


def _take_charter(walk: _Walk, statement: Statement) -> None:
    signed = charters.verify(body_of(statement, CharterBody).charter.encode())
    if not signed.is_in_force:
        raise PeerFault(f"its charter is not in force: {', '.join(signed.unsigned)} have not signed it")
    if walk.owner is not None and signed.charter.consortium != walk.owner.consortium:
        raise PeerFault(f"its charter is of {signed.charter.consortium}, its author of {walk.owner.consortium}")
    if walk.charter is not None and signed.charter.version < walk.charter.version:
        raise PeerFault(f"its charter is version {signed.charter.version}, after version {walk.charter.version}")
    walk.charter = signed.charter


def _check_marks(walk: _Walk, marks: dict[int, str]) -> int:
    """The size of the largest checkpoint that holds."""
    if walk.owner is None:
        if marks:
            walk.note(None, f"the journal was cut: it is empty, and has a checkpoint of {max(marks)} entries")
        return 0
    origin = checkpoint.origin_of(walk.owner.consortium, walk.owner.party, walk.owner.node)
    keys = walk.keys.keys_of_party(walk.owner)
    covered = 0
    for size, note in marks.items():
        if size > walk.entries:
            walk.note(None, f"the journal was cut: it holds {walk.entries} entries, and a signed checkpoint of {size}")
            continue
        try:
            head = checkpoint.verify(note, origin, *keys)
        except PeerFault as error:
            walk.note(None, error)
            continue
        if head.size != size:
            walk.note(None, f"the checkpoint kept for {size} entries is of {head.size}")
        elif head.root != walk.roots[size]:
            walk.note(None, f"the first {size} entries are not those of the signed checkpoint of {size}")
        else:
            covered = size
    due = walk.entries - walk.entries % CHECKPOINT_ENTRIES
    if due > max(marks, default=0):
        walk.note(None, f"checkpoints were removed: of {walk.entries} entries, one of {due} or more was signed")
    return covered


def _check_charter(walk: _Walk, known: Charter | None) -> None:
    if known is None or walk.charter is None or known.digest == walk.charter.digest:
        return
    differences = "; ".join(charters.difference(known, walk.charter))
    walk.note(None, f"the journal's charter is not the one given: {differences}")
