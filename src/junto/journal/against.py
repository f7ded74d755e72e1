# SPDX-License-Identifier: Apache-2.0
"""Two journals held against each other: what another party's journal keeps of the statements and heads of this one.

A node signs the head of its journal in each statement that it tells others. They keep these statements, so whoever
takes entries out of the middle of a journal, or cuts its end off, leaves heads elsewhere that the new journal does not
lead to. Every finding rests on a signature of the journal's own party; what the other journal says without one counts
for nothing.

What it cannot show: entries after the last head that was told, and a journal whose others were all rewritten alike.
"""

from dataclasses import dataclass, field
from pathlib import Path

from junto.errors import InvalidInput, PeerFault, StorageFailed
from junto.journal.heads import GAP, START, Gap, Start
from junto.journal.reading import Entry, Reader
from junto.journal.statement import CERTIFICATE, CHARTER, CharterBody, Head, KeyRing, body_of, open_statement
from junto.journal.storage import Rows
from junto.journal.verify import Problem
from junto.trust import charter as charters
from junto.trust.charter import Charter
from junto.trust.names import Name, parse_name


@dataclass(frozen=True, slots=True)
class Against:
    """The evidence in another party's journal about this one; the entries that problems name are this journal's."""

    owner: str  # whose the other journal is
    statements: int  # of this journal's party
    heads: int
    problems: tuple[Problem, ...]
    declared: tuple[str, ...]  # losses that this journal says of itself


@dataclass(slots=True)
class _Heard:
    """Heads of this journal, as the other one has them: the place there, and whether this journal leads to it."""

    fits: list[tuple[int, Head]] = field(default_factory=list)
    differs: list[tuple[int, Head]] = field(default_factory=list)
    beyond: list[tuple[int, Head]] = field(default_factory=list)
    absent: list[tuple[int, Entry]] = field(default_factory=list)
    statements: int = 0


def verify_against(place: Path | Rows, other: Path | Rows) -> Against:
    """The evidence in the journal at `other` about the one at `place`.

    Raises InvalidInput if one of them is no journal, or both are of one party; StorageFailed.
    """
    with Reader(place) as reader, Reader(other) as held:
        ours, theirs = _owner(reader), _owner(held)
        if ours.party == theirs.party:
            raise InvalidInput(
                f"{reader.where} and {held.where} are both journals of {ours.party}: give another party's"
            )
        gaps, anew = _declared(reader, ours)
        heard = _heard(reader, held, ours)
        size = len(reader)
    lost = [one for one in (*heard.differs, *heard.beyond) if any(gap.covers(one[1]) for _, gap in gaps)]
    lost += [one for one in (*heard.differs, *heard.beyond) if one not in lost and one[1].start < anew]
    heard.differs = [one for one in heard.differs if one not in lost]
    heard.beyond = [one for one in heard.beyond if one not in lost]
    return Against(
        owner=theirs.uri,
        statements=heard.statements,
        heads=len(heard.fits) + len(heard.differs) + len(heard.beyond) + len(lost),
        problems=tuple(_problems(heard, theirs, size)),
        declared=tuple(
            f"entry {index}: it says that entries after the first {gap.size} were lost; {gap.party} had seen "
            f"{gap.seen.size}, and {gap.taken} statements came back from there"
            for index, gap in gaps
        )
        + (("it says that it was begun anew, because the journal before it was lost",) if anew else ()),
    )


def _owner(reader: Reader) -> Name:
    if not len(reader):
        raise InvalidInput(f"{reader.where} holds nothing")
    return parse_name(reader.entry(0).author)


def _is_of(entry: Entry, name: Name) -> bool:
    author = parse_name(entry.author)
    return (author.consortium, author.party) == (name.consortium, name.party)


def _declared(reader: Reader, ours: Name) -> tuple[list[tuple[int, Gap]], int]:
    """The losses that a journal says of itself, and the number of the start that began it anew (0: none)."""
    gaps: list[tuple[int, Gap]] = []
    anew = 0
    for entry in reader.entries(kinds=(START, GAP)):
        if _is_of(entry, ours) and entry.kind == GAP:
            gaps.append((entry.index, body_of(entry.statement, Gap)))
        elif _is_of(entry, ours):
            start = body_of(entry.statement, Start)
            anew = start.number if start.anew else anew
    return gaps, anew


def _heard(reader: Reader, held: Reader, ours: Name) -> _Heard:
    """Every statement of ours that the other journal holds, its signature checked."""
    found = _Heard()
    keys = KeyRing()
    charter: Charter | None = None
    size = len(reader)
    first = held.entry(0)
    for entry in held.entries():
        try:
            if entry.kind == CHARTER and entry.author == first.author:
                charter = charters.verify(body_of(entry.statement, CharterBody).charter.encode()).charter
                continue
            if entry.kind != CERTIFICATE and not _is_of(entry, ours):
                continue
            statement = open_statement(entry.envelope, keys, charter)
        except (InvalidInput, PeerFault):
            continue  # nobody's word
        if not _is_of(entry, ours) or entry.kind == CERTIFICATE:
            continue
        found.statements += 1
        kept = reader.find(statement.id)
        if kept is None or kept.envelope != entry.envelope:
            found.absent.append((entry.index, entry))
        head = statement.head
        if not isinstance(head, Head):
            continue
        if head.size > size:
            found.beyond.append((entry.index, head))
        elif _root(reader, head.size) == head.root:
            found.fits.append((entry.index, head))
        else:
            found.differs.append((entry.index, head))
    return found


def _root(reader: Reader, size: int) -> str:
    try:
        return reader.root_at(size).hex()
    except StorageFailed:
        return ""  # entries are missing: `verify` names them


def _problems(heard: _Heard, theirs: Name, size: int) -> list[Problem]:
    found: list[Problem] = []
    where = f"of the journal of {theirs.party}"
    if heard.beyond:
        index, head = max(heard.beyond, key=lambda one: one[1].size)
        found.append(
            Problem(
                size,
                f"it was cut: it ends after {size} entries, and entry {index} {where} holds a signed head of "
                f"{head.size}",
            )
        )
    if heard.differs:
        index, head = min(heard.differs, key=lambda one: one[1].size)
        before = max((one.size for _, one in heard.fits if one.size < head.size), default=0)
        later = [(place, one) for place, one in heard.fits if one.size > head.size]
        between = f"entries {before} to {head.size - 1}"
        if later:
            place, fit = later[0]
            what = (
                f"it was forked: {between} are others than those that entry {index} {where} holds a signed head of, "
                f"and entry {place} there holds one of {fit.size} entries that fits"
            )
        else:
            what = f"it was rewritten: {between} are not those that entry {index} {where} holds a signed head of"
        found.append(Problem(before, what))
    roots: dict[int, tuple[int, str]] = {}
    for index, head in (*heard.fits, *heard.differs, *heard.beyond):
        place, root = roots.setdefault(head.size, (index, head.root))
        if root != head.root:
            what = f"it was forked: entries {place} and {index} {where} hold two signed heads of {head.size} entries"
            found.append(Problem(None, what))
    for index, entry in heard.absent:
        what = f"it lacks the {entry.kind} {entry.id}, which entry {index} {where} holds, signed"
        found.append(Problem(None, what))
    return found
