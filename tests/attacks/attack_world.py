# SPDX-License-Identifier: Apache-2.0
"""The people under attack, the rules that protect them, and the knowledge that an attacker starts with.

`north`, `east` and `west` each hold a third of the people; `hub` asks and holds nobody.

    people (unit id)                                        the attacker knows it of every target
    age, sex, zip, dept        group                        yes; the four together describe one person
    id                         no rule                      yes
    salary, hours, bonus       aggregate                    no
    diagnosis                  filter                       no
    phone                      no rule                      no

    visits (unit person, several rows a person)
    ward                       group                        yes
    cost                       aggregate                    no

The attacker may publish open tables of its own, and knows which tables exist and their rules.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import pyarrow as pa

import junto
from junto.inprocess import Local

OWNERS = ("north", "east", "west")
ASKER = "hub"
UNITS = 10
PEOPLE_RULES: tuple[dict[str, object], ...] = (
    {"columns": ["age", "sex", "zip", "dept"], "allow": "group", "units": UNITS},
    {"columns": ["salary", "hours", "bonus"], "allow": "aggregate", "units": UNITS},
    {"columns": ["diagnosis"], "allow": "filter", "units": UNITS},
)
VISITS_RULES: tuple[dict[str, object], ...] = (
    {"columns": ["ward"], "allow": "group", "units": UNITS},
    {"columns": ["cost"], "allow": "aggregate", "units": UNITS},
)
OPEN_RULES: tuple[dict[str, object], ...] = ({"columns": ["*"], "allow": "open"},)
DIAGNOSES = ("flu", "asthma", "hiv", "burn")


@dataclass(frozen=True, slots=True)
class Person:
    """One person, as nobody but its owner knows it."""

    id: int
    age: int
    sex: str
    zip: str
    dept: str
    salary: int
    hours: float
    bonus: int | None  # few have one
    diagnosis: str
    phone: str

    @property
    def described(self) -> str:
        """A condition on columns with `group` that this person alone meets."""
        return f"age = {self.age} AND sex = '{self.sex}' AND zip = '{self.zip}' AND dept = '{self.dept}'"


@dataclass(frozen=True, slots=True)
class Truth:
    """Everybody; and the targets, whom age, sex, zip and dept describe, in a drawn order."""

    people: tuple[Person, ...]
    targets: tuple[Person, ...]

    @property
    def depts(self) -> tuple[str, ...]:
        """The names of the departments, sorted."""
        return tuple(sorted({person.dept for person in self.people}))


def drawn(seed: int, people: int, targets: int) -> Truth:
    """People with distinct salaries, so that a salary names its owner."""
    rng = random.Random(seed)
    salaries = rng.sample(range(12_000, 200_000), people)
    everyone = tuple(
        Person(
            id=1000 + i,
            age=rng.randrange(18, 81),
            sex=rng.choice("FM"),
            zip=f"{rng.randrange(30):05d}",
            dept=f"dept {rng.choice('ABCDEF')}",
            salary=salary,
            hours=rng.randrange(10_000, 60_000) / 1024,
            bonus=salary // 10 if rng.random() < 0.02 else None,
            diagnosis=rng.choice(DIAGNOSES),
            phone=f"+1-555-{rng.randrange(10**7):07d}",
        )
        for i, salary in enumerate(salaries)
    )
    often = Counter(person.described for person in everyone)
    alone = [person for person in everyone if often[person.described] == 1]
    return Truth(everyone, tuple(rng.sample(alone, targets)))


def _people(people: Sequence[Person]) -> pa.Table:
    columns = {name: [getattr(person, name) for person in people] for name in Person.__slots__}
    return pa.table(columns | {"bonus": pa.array(columns["bonus"], pa.int64())})


def _visits(people: Sequence[Person]) -> pa.Table:
    rows = [(p.id, f"ward {p.age % 3}", p.salary % 997 + v) for p in people for v in range(1 + p.id % 4)]
    return pa.table(dict(zip(("person", "ward", "cost"), map(list, zip(*rows, strict=True)), strict=True)))


class World:
    """A consortium of real nodes that holds the people, and the attacker's desk in it."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        self.local: Local = junto.local([*OWNERS, ASKER])

    def __enter__(self) -> Self:
        """Start the nodes and publish."""
        self.local.__enter__()
        try:
            for number, owner in enumerate(OWNERS):
                part = self.truth.people[number :: len(OWNERS)]
                self.local.publish(owner, "people", _people(part), PEOPLE_RULES, unit="id")
                self.local.publish(owner, "visits", _visits(part), VISITS_RULES, unit="person")
        except BaseException:
            self.local.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Stop the nodes."""
        self.local.__exit__(kind, error, tb)

    def publish_open(self, name: str, columns: Mapping[str, Sequence[object]]) -> None:
        """Publish an open table of the attacker's own."""
        self.local.publish(ASKER, name, pa.table({c: list(v) for c, v in columns.items()}), OPEN_RULES)
