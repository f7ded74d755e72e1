# SPDX-License-Identifier: Apache-2.0
"""The expected cost of our part of a plan, before anything runs: from what is published of the datasets it reads,
from how fast this node computed lately, and, for a fragment it ran before over the same versions, from that run.

Estimates err on the large side where nothing is known: a fragment that filters is taken to keep a fifth of its rows,
a grouped one has as many groups as its columns' distinct values allow, or `GROUPS`. They decide what is reserved and
what others are told, never what may run.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

from junto.catalog.dataset import Dataset
from junto.plan.steps import MaskedSum, Move, Plan, Query, Read, Release, Threshold, parties_of
from junto.tasks.bodies import Estimate
from junto.tasks.capacity import Amount
from junto.types import DatasetName, PartyId, StepId

Published = Callable[[PartyId, DatasetName], Dataset | None]
"""A party's dataset as it stands in the catalog."""

GROUPS = 10_000
KEPT_BY_FILTER = 0.2
FRAGMENT_BYTES = 2 << 20
"""The memory that an engine needs for a fragment, however small."""
CELL_BYTES = 16
"""A value in memory or in a file of rows."""
GROUP_BYTES = 64
"""A value of a group, in the engine's hash table and in the table that comes out."""

_SMALL_BYTES = 1 << 20
_MOST_BYTES = 1 << 60  # what others publish of their datasets may be anything
_WEIGHT = 0.2
_LIMIT = re.compile(r"\bLIMIT (\d{1,18})\s*$", re.IGNORECASE)
_WHERE = re.compile(r"\bWHERE\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Pace:
    """The pace of this node: the least cost of a fragment, and bytes read per second beyond that.

    Both are exponential averages over the fragments it ran; small ones tell of the first, large ones of the second.
    """

    least_seconds: float = 0.01
    bytes_per_second: float = 200e6

    def seconds(self, size: int) -> float:
        """The time that a fragment reading so many bytes is expected to take."""
        return self.least_seconds + size / self.bytes_per_second

    def after(self, size: int, seconds: float) -> "Pace":
        """The pace, having seen one more fragment."""
        if size < _SMALL_BYTES:
            return Pace(_averaged(self.least_seconds, seconds), self.bytes_per_second)
        rate = size / max(seconds - self.least_seconds, seconds / 10, 1e-6)
        return Pace(self.least_seconds, _averaged(self.bytes_per_second, rate))


@dataclass(frozen=True, slots=True)
class Past:
    """The rows that a fragment gave and the time it took when it ran."""

    rows: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Needs:
    """The expected cost of our part, and the resources it must hold meanwhile."""

    estimate: Estimate
    amount: Amount


@dataclass(frozen=True, slots=True)
class _Output:
    """The expected output of a fragment."""

    rows: int
    columns: int

    @property
    def bytes(self) -> int:
        return self.rows * self.columns * CELL_BYTES


def needs_of(plan: Plan, me: PartyId, published: Published, pace: Pace, past: Mapping[str, Past], most: int) -> Needs:
    """The needs of `me` for its steps of a plan.

    past: of fragments by `fragment_key`. most: the memory of one fragment, beyond which the engine spills.
    """
    outputs: dict[StepId, _Output] = {}
    rows = read = memory = disk = 0
    seconds = 0.0
    for step in plan.steps:
        mine = me in parties_of(step)
        match step:
            case Query():
                known = past.get(fragment_key(step)) if mine else None
                taken = [_taken(step.party, one, published, outputs) for one in step.reads]
                output = _output(step, taken, known, published)
                outputs[step.id] = output
                if mine:
                    size = fragment_bytes(step, published)
                    rows += sum(dataset.rows for dataset in _datasets(step, published))
                    read += size
                    beside = sum(sorted(one.bytes for one in taken)[:-1])  # what a join holds of the smaller tables
                    groups = output.rows * output.columns * GROUP_BYTES if step.keys is not None else 0
                    memory += FRAGMENT_BYTES + min(beside + groups, most)
                    disk += output.bytes if step.keys is None else 0
                    seconds += known.seconds if known is not None else pace.seconds(size)
            case Threshold() if mine:
                memory += _union(step.inputs, outputs) * 2 * CELL_BYTES
                seconds += pace.least_seconds
            case MaskedSum() if mine:
                memory += _union(step.inputs, outputs) * max(len(step.measures), 1) * 3 * CELL_BYTES
                seconds += pace.least_seconds
            case Move() if mine and step.sender != me:
                disk += outputs[step.input].bytes if step.input in outputs else 0
            case Release() if mine:
                moved = [one.input for s in step.moves if isinstance(one := plan.step(s), Move)]
                inputs = [outputs[id] for id in (*moved, *((step.own,) if step.own else ())) if id in outputs]
                result = max((one.bytes for one in inputs), default=0)
                memory += FRAGMENT_BYTES + min(sum(one.bytes for one in inputs), most)
                disk += result
                seconds += pace.seconds(result)
            case _:
                pass
    memory, disk = min(memory, _MOST_BYTES), min(disk, _MOST_BYTES)
    rows, read = min(rows, _MOST_BYTES), min(read, _MOST_BYTES)
    return Needs(Estimate(rows, read, round(seconds, 6), memory), Amount(memory, disk))


def fragment_key(step: Query) -> str:
    """The name of a fragment over the versions that it reads; it is another one for rows that another step gives."""
    return "\n".join((step.sql, *(f"{read.name} {read.version or ''} {read.step or ''}" for read in step.reads)))


def fragment_bytes(step: Query, published: Published) -> int:
    """The bytes of datasets that a fragment reads."""
    return sum(dataset.bytes for dataset in _datasets(step, published))


def _datasets(step: Query, published: Published) -> list[Dataset]:
    found = [published(step.party, read.dataset) for read in step.reads if read.dataset is not None]
    return [dataset for dataset in found if dataset is not None]


def _taken(party: PartyId, read: Read, published: Published, outputs: Mapping[StepId, _Output]) -> _Output:
    if read.dataset is None:
        return outputs.get(read.step or StepId(""), _Output(0, 0))
    found = published(party, read.dataset)
    return _Output(found.rows, len(read.columns) or len(found.columns)) if found is not None else _Output(0, 0)


def _output(step: Query, taken: list[_Output], known: Past | None, published: Published) -> _Output:
    columns = len(step.columns) if step.keys is None else len(step.keys) + 1 + len(step.measures)
    if known is not None:
        return _Output(known.rows, columns)
    rows = max((one.rows for one in taken), default=1)
    if _WHERE.search(step.sql):
        rows = max(int(rows * KEPT_BY_FILTER), 1)
    if step.keys is not None:
        return _Output(min(rows, _groups(step, len(step.keys), published)), columns)
    limit = _LIMIT.search(step.sql)
    return _Output(min(rows, int(limit[1])) if limit else rows, columns)


def _groups(step: Query, keys: int, published: Published) -> int:
    """The number of groups at most, if each key is made of one column; `GROUPS` if too little is published."""
    distinct: list[int] = []
    for read in step.reads:
        found = published(step.party, read.dataset) if read.dataset is not None else None
        for column in found.statistics if found is not None else ():
            if column.distinct is not None and column.column in read.columns:
                distinct.append(column.distinct + 1)  # NULL is a key too
    return prod(sorted(distinct)[-keys:]) if 0 < keys <= len(distinct) else 1 if keys == 0 else GROUPS


def _union(inputs: tuple[StepId, ...], outputs: Mapping[StepId, _Output]) -> int:
    """The number of groups that several parties have together, at most."""
    return sum(outputs[id].rows for id in inputs if id in outputs)


def _averaged(old: float, new: float) -> float:
    return (1 - _WEIGHT) * old + _WEIGHT * new
