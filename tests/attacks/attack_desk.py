# SPDX-License-Identifier: Apache-2.0
"""The attacker's desk: it asks in SQL or with plans written by hand, and searches by yes and no."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import NewType

from attack_world import ASKER, Person, Truth, World

from junto.client.question import Question
from junto.errors import JuntoError
from junto.plan import expressions
from junto.plan.steps import Plan

Row = tuple[object, ...]
Claims = NewType("Claims", dict[int, object])
"""Secrets by the person's id, as the attacker believes them to be."""

SECONDS = 30.0
PLAUSIBLE = range(10_000, 210_000)
"""The salaries that an attacker believes."""
VAIN = 4
"""People after which a form of attack that told nothing is given up."""


@dataclass
class Desk:
    """The attacker's access to a world: questions in, rows or an error out."""

    world: World
    questions: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    error: str = ""
    withheld: object = None

    @property
    def truth(self) -> Truth:
        """The people. An attacker uses of it what the module `attack_world` says that it knows."""
        return self.world.truth

    @property
    def targets(self) -> tuple[Person, ...]:
        """The people whom an attack is after."""
        return self.world.truth.targets

    def rows(self, sql: str) -> list[Row] | None:
        """An answer's rows; None if there is none."""
        return self._asked(lambda: self.world.local[ASKER].sql(sql))

    def planned(self, sql: str, change: Callable[[Plan], Plan]) -> list[Row] | None:
        """The rows that the plan of a question gives after a change by hand; None if there is no answer."""
        desk = self.world.local[ASKER]
        return self._asked(lambda: Question(sql, change(desk.sql(sql).plan), "", desk))

    def row(self, sql: str) -> Row | None:
        """The first row; None if there is none."""
        rows = self.rows(sql)
        return rows[0] if rows else None

    def number(self, sql: str) -> float | None:
        """The first figure of the first row; None if there is none."""
        row = self.row(sql)
        return float(row[0]) if row and row[0] is not None else None  # type: ignore[arg-type]

    def _asked(self, question: Callable[[], Question]) -> list[Row] | None:
        self.questions += 1
        self.error, self.withheld = "", None
        try:
            answer = question().run(deadline=SECONDS)
        except JuntoError as error:
            self.error = type(error).__name__
            self.errors.setdefault(f"{self.error}: {' '.join(str(error).split())}"[:400], 0)
            return None
        self.withheld = answer.receipt.withheld
        columns = [column.to_pylist() for column in answer.table.columns]
        return list(zip(*columns, strict=True))


def canonical(sql: str) -> str:
    """A fragment's one spelling, without which no node looks at it; the text itself if it has none."""
    try:
        return expressions.spelling(expressions.parse(sql))
    except JuntoError:
        return sql


def singled_out(person: Person) -> tuple[str, str]:
    """Two conditions that one person meets: by description, and by the unit column."""
    return f"({person.described})", f"id = {person.id}"


def plausible(value: object) -> int | None:
    """A figure as a salary; None if it cannot be one."""
    try:
        found = round(float(value))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return found if found in PLAUSIBLE else None


def by_forms(desk: Desk, forms: list[str], read: Callable[[Row], object] = lambda row: row[0]) -> Claims:
    """The salaries that some forms of question tell. `{who}` in a form stands for a condition on one person."""

    def told(form: str, who: str, person: Person) -> int | None:
        row = desk.row(form.format(who=who, id=person.id))
        return plausible(read(row)) if row and None not in row else None

    return _tried(desk, forms, told)


def by_bits(
    desk: Desk,
    forms: list[str],
    seen: Callable[[Desk, list[Row] | None], Hashable],
    low: int = PLAUSIBLE.start,
    high: int = PLAUSIBLE.stop,
) -> Claims:
    """The salaries found by bisection, from anything that differs between a test that holds and one that does not.

    `{who}` in a form stands for a condition on one person, `{x}` for the salary that is tested.
    """

    def found(form: str, who: str, _: Person) -> int | None:
        return _bisected(lambda x: seen(desk, desk.rows(form.format(who=who, x=x))), low, high)

    return _tried(desk, forms, found)


def _tried(desk: Desk, forms: list[str], find: Callable[[str, str, Person], int | None]) -> Claims:
    """The salaries that any form of question, by either condition on one person, lets `find` tell."""
    claims = Claims({})
    vain = dict.fromkeys(((f, w) for f in range(len(forms)) for w in range(2)), 0)
    for person in desk.targets:
        for number, form in enumerate(forms):
            for way, who in enumerate(singled_out(person)):
                if person.id in claims or vain[number, way] >= VAIN:
                    continue
                value = find(form, who, person)
                if value is None:
                    vain[number, way] += 1
                else:
                    claims[person.id] = value
    return claims


def _bisected(look: Callable[[int], Hashable], low: int, high: int) -> int | None:
    below, above = look(low), look(high)
    if below == above:
        return None
    while low < high - 1:
        middle = (low + high) // 2
        found = look(middle)
        if found == below:
            low = middle
        elif found == above:
            high = middle
        else:
            return None
    return low


def answer_seen(desk: Desk, rows: list[Row] | None) -> Hashable:
    """An attacker's look at the rows."""
    return None if rows is None else tuple(map(repr, rows))


def error_seen(desk: Desk, rows: list[Row] | None) -> Hashable:
    """An attacker's look at whether there was an answer, and at the class of the error."""
    return rows is None, desk.error, rows == []


def withheld_seen(desk: Desk, rows: list[Row] | None) -> Hashable:
    """An attacker's look at what an answer says of groups that were withheld."""
    return desk.error, repr(desk.withheld)
