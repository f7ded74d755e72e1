# SPDX-License-Identifier: Apache-2.0
"""One person of a large group cannot be made the only one behind a figure, nor told by whether a question fails."""

from collections.abc import Iterator

import pyarrow as pa
import pytest
from pooled import OPEN, Pooled

from junto.client.question import Answer
from junto.errors import JuntoError, Refused, UnsupportedSQL

_RULES: list[dict[str, object]] = [
    {"columns": ["age", "sex", "dept"], "allow": "group"},
    {"columns": ["grade"], "allow": "filter"},
    {"columns": ["salary", "grade", "bonus"], "allow": "aggregate"},
]
_WHO = "age = 77 AND sex = 'F' AND dept = 'd1'"
_TARGET = 54_321


def _people(first: int, rows: int) -> pa.Table:
    numbers = range(first, first + rows)
    table: dict[str, list[object]] = {
        "id": list(numbers),
        "age": [20 + i % 40 for i in numbers],
        "sex": ["FM"[i % 2] for i in numbers],
        "dept": [f"d{i % 3}" for i in numbers],
        "grade": [i % 5 for i in numbers],
        "salary": [30_000 + 37 * i % 20_000 for i in numbers],
        "bonus": [None] * rows,
    }
    target = {"age": 77, "sex": "F", "dept": "d1", "salary": _TARGET, "bonus": 999} if first == 0 else {}
    for name, value in target.items():
        table[name][0] = value
    return pa.table(table, schema=pa.schema([(n, pa.string() if n in ("sex", "dept") else pa.int64()) for n in table]))


@pytest.fixture(scope="module")
def world() -> Iterator[Pooled]:
    with Pooled(["north", "east", "west", "hub"]) as world:
        people = {party: _people(100 * i, 100) for i, party in enumerate(("north", "east", "west"))}
        world.share("people", people, _RULES, unit="id")
        probe: dict[str, list[object]] = {"age": [77] * 50, "sex": ["F"] * 50, "dept": ["d1"] * 50, "tag": [1] * 50}
        world.share("probe", {"hub": pa.table(probe)}, OPEN)
        world.share("one", {"hub": pa.table({name: values[:1] for name, values in probe.items()})}, OPEN)
        yield world


_JOIN = "FROM people p LEFT JOIN one q ON p.age = q.age AND p.sex = q.sex AND p.dept = q.dept"
_SINGLED_OUT = (
    f"SELECT SUM(salary) FILTER (WHERE {_WHO}) FROM people",
    f"SELECT SUM(CASE WHEN {_WHO} THEN salary ELSE 0 END) FROM people",
    f"SELECT SUM(CASE WHEN {_WHO} THEN salary ELSE 50000 END) FROM people",
    f"SELECT AVG(CASE WHEN {_WHO} THEN salary END) FROM people",
    f"SELECT SUM(salary * CAST({_WHO} AS INTEGER)) FROM people",
    f"SELECT SUM(salary + 1000000000 * CASE WHEN {_WHO} THEN salary ELSE 0 END) FROM people",
    f"SELECT SUM(COALESCE(NULLIF(CASE WHEN {_WHO} THEN salary ELSE -1 END, -1), 0)) FROM people",
    f"SELECT STDDEV(salary) FILTER (WHERE {_WHO}) FROM people",
    "SELECT SUM(bonus) FROM people",
    "SELECT COUNT(bonus) FROM people",
    f"SELECT SUM(CASE WHEN q.tag IS NOT NULL THEN p.salary ELSE 0 END) {_JOIN}",
    f"SELECT SUM(p.salary) FILTER (WHERE q.tag = 1) {_JOIN}",
    f"SELECT SUM(p.salary * COALESCE(q.tag, 0)) {_JOIN}",
    f"SELECT SUM(p.salary * COALESCE(q.tag, 0) + 50000) {_JOIN}",
    f"SELECT SUM(p.salary * COALESCE(q.tag, 1e-9)) {_JOIN}",
    f"SELECT SUM(p.salary * q.tag) {_JOIN}",
)


@pytest.mark.parametrize("question", _SINGLED_OUT)
def test_a_figure_of_one_person_is_null_however_it_is_spelled(world: Pooled, question: str) -> None:
    try:
        answer = world.ask("hub", question, deadline="60s")
    except (Refused, UnsupportedSQL):
        return
    assert [list(row.values()) for row in answer.table.to_pylist()] == [[None]]
    assert answer.hidden == 1


def test_a_count_that_one_person_fills_by_a_join_is_null(world: Pooled) -> None:
    joined = "FROM people p LEFT JOIN probe q ON p.age = q.age AND p.sex = q.sex AND p.dept = q.dept AND p.grade = 0"
    answer = world.ask("hub", f"SELECT COUNT(q.tag) AS n {joined}", deadline="60s")
    assert answer.table.to_pylist() == [{"n": None}]


@pytest.mark.parametrize(
    "bent",
    [
        "LEAST(GREATEST(salary - 54320, 0), 1)",
        "GREATEST(0, 1 - ABS(salary - 54321))",
        "SIGN(salary - 54321)",
        "salary // 54321",
        "salary % 2",
        "POWER(salary, 10)",
        "SQRT(salary - 54321)",
        "LN(salary - 54321)",
        "ROUND(salary / 100000)",
        "CAST(salary AS TINYINT)",
        "salary * salary * salary",
    ],
)
def test_what_selects_among_values_needs_more_than_aggregate(world: Pooled, bent: str) -> None:
    with pytest.raises(Refused, match="salary of people in a filter"):
        world.ask("hub", f"SELECT SUM({bent}) FROM people", deadline="60s")


def test_whether_a_question_fails_says_nothing_of_one_person(world: Pooled) -> None:
    def seen(question: str) -> tuple[object, ...]:
        try:
            answer: Answer = world.ask("hub", question, deadline="60s")
        except JuntoError as error:
            return type(error).__name__, error.code
        return answer.table.num_rows, answer.hidden, answer.receipt.withheld, str(answer.table.to_pylist())

    for failing in (
        "SUM(1 // (grade - {x}))",
        "SUM(CAST(CASE WHEN grade > {x} THEN 'x' ELSE '1' END AS INTEGER))",
        "SUM(grade * (9223372036854775807 - {x}))",
        "COUNT(*) FILTER (WHERE 1 // (grade - {x}) > 0)",
    ):
        told = {seen(f"SELECT {failing.format(x=x)} AS f FROM people WHERE {_WHO}") for x in (-3, 0, 7)}
        assert len(told) == 1, failing
