# SPDX-License-Identifier: Apache-2.0
"""Attackers that need nothing but SQL, and a table of their own to publish."""

from collections.abc import Callable, Sequence

from attack_desk import (
    PLAUSIBLE,
    Claims,
    Desk,
    answer_seen,
    by_bits,
    by_forms,
    error_seen,
    plausible,
    withheld_seen,
)
from attack_kinds import attack
from attack_world import UNITS, Person

# ── one person's figure in a large group ────────────────────────────────────────────────────────────


@attack()
def filter_on_one(desk: Desk) -> Claims:
    """A FILTER that one person meets, over everybody."""
    return by_forms(
        desk,
        [
            "SELECT SUM(salary) FILTER (WHERE {who}) FROM people",
            "SELECT AVG(salary) FILTER (WHERE {who}), COUNT(*) FROM people",
            "SELECT SUM(salary) FILTER (WHERE NOT NOT ({who})) FROM people GROUP BY sex ORDER BY 1 NULLS LAST LIMIT 1",
            "SELECT SUM(salary + salary) FILTER (WHERE {who}) / 2 FROM people",
        ],
    )


@attack()
def case_on_one(desk: Desk) -> Claims:
    """A CASE that leaves one person's value, in several spellings of nothing for the others."""
    return by_forms(
        desk,
        [
            "SELECT SUM(CASE WHEN {who} THEN salary ELSE 0 END) FROM people",
            "SELECT SUM(CASE WHEN {who} THEN salary END) FROM people",
            "SELECT SUM(CASE WHEN NOT ({who}) THEN 0 ELSE salary END) FROM people",
            "SELECT SUM(CASE ({who}) WHEN TRUE THEN salary ELSE 0 END) FROM people",
            "SELECT SUM(CASE WHEN {who} THEN salary ELSE 1 END) - COUNT(*) + 1 FROM people",
            "SELECT SUM(IF({who}, salary, 0)) FROM people",
            "SELECT AVG(CASE WHEN {who} THEN salary END) FROM people",
        ],
    )


@attack()
def product_with_a_condition(desk: Desk) -> Claims:
    """A product with a number that is 1 for one person and 0 for everybody else."""
    return by_forms(
        desk,
        [
            "SELECT SUM(salary * CAST({who} AS INTEGER)) FROM people",
            "SELECT SUM(salary * CASE WHEN {who} THEN 1 ELSE 0 END) FROM people",
            "SELECT SUM(hours * 0 + salary * CAST(({who}) AS DOUBLE)) FROM people",
            "SELECT SUM(salary * (1 - CAST(NOT ({who}) AS INTEGER))) FROM people",
        ],
    )


@attack()
def nothing_for_the_others(desk: Desk) -> Claims:
    """NULLIF, COALESCE, LEAST and GREATEST that leave one person's value."""
    return by_forms(
        desk,
        [
            "SELECT SUM(COALESCE(NULLIF(CASE WHEN {who} THEN salary ELSE -1 END, -1), 0)) FROM people",
            "SELECT SUM(LEAST(salary, CASE WHEN {who} THEN 1000000 ELSE 0 END)) FROM people",
            "SELECT SUM(GREATEST(salary - CASE WHEN {who} THEN 0 ELSE 1000000 END, 0)) FROM people",
            "SELECT SUM(NULLIF(salary, CASE WHEN {who} THEN NULL ELSE salary END)) FROM people",
        ],
    )


@attack()
def one_person_outweighs(desk: Desk) -> Claims:
    """A sum over everybody that one person's huge weight dominates."""
    weight = 10**9
    forms = [
        f"SELECT SUM(salary + {weight} * CASE WHEN {{who}} THEN salary ELSE 0 END) FROM people",
        f"SELECT SUM(salary * CASE WHEN {{who}} THEN {weight} ELSE 1 END) FROM people",
        f"SELECT SUM(salary * (1 + {weight} * CAST({{who}} AS BIGINT))) FROM people",
        "SELECT SUM(CAST(salary AS DOUBLE) * CASE WHEN {who} THEN 1e9 ELSE 1 END) FROM people",
        f"SELECT AVG(salary * CASE WHEN {{who}} THEN {weight} ELSE 1 END) * COUNT(*) FROM people",
    ]
    return by_forms(desk, forms, lambda row: float(row[0]) // weight)  # type: ignore[arg-type]


@attack()
def open_weight_outweighs(desk: Desk) -> Claims:
    """The same with weights in the attacker's own open table, joined by the description."""
    _suspects(desk)
    claims = Claims({})
    on = "p.age = s.age AND p.sex = s.sex AND p.zip = s.zip AND p.dept = s.dept"
    for tag, person in enumerate(desk.targets):
        row = desk.row(
            f"SELECT SUM(p.salary * COALESCE(s.weight, 1)) FROM people p LEFT JOIN suspects s ON {on} AND s.tag = {tag}"
        )
        value = plausible(float(row[0]) // 10**9) if row and row[0] is not None else None  # type: ignore[arg-type]
        if value:
            claims[person.id] = value
    return claims


@attack()
def weights_for_everybody(desk: Desk) -> Claims:
    """The same with a weight for everybody, so that the guards of the sum count everybody."""
    claims = Claims({})
    keys = ("age", "sex", "zip", "dept")
    for person in desk.targets:
        known = {tuple(getattr(p, key) for key in keys): 1 for p in desk.truth.people}
        known[tuple(getattr(person, key) for key in keys)] = 10**8
        columns = dict(zip(keys, map(list, zip(*known, strict=True)), strict=True))
        table = f"weights{person.id}"
        desk.world.publish_open(table, columns | {"weight": list(known.values())})
        for form in ("SUM(p.salary * w.weight)", "SUM(CAST(p.salary AS DOUBLE) * w.weight)"):
            figure = desk.number(f"SELECT {form} FROM people p JOIN {table} w USING (age, sex, zip, dept)")
            value = None if figure is None else plausible(figure // 10**8)
            if value:
                claims[person.id] = value
    return claims


@attack()
def own_table_names_the_groups(desk: Desk) -> Claims:
    """The attacker's open table of suspects, joined to everybody, groups by suspect: one question for all."""
    _suspects(desk)
    same = "p.age = s.age AND p.sex = s.sex AND p.zip = s.zip AND p.dept = s.dept"
    claims = Claims({})
    for sql in (
        f"SELECT s.tag, SUM(p.salary) FILTER (WHERE {same}) FROM people p JOIN suspects s ON TRUE GROUP BY s.tag",
        f"SELECT s.tag, SUM(CASE WHEN {same} THEN p.salary ELSE 0 END) FROM people p JOIN suspects s ON 1 = 1"
        " GROUP BY s.tag",
        f"SELECT s.tag, SUM(p.salary * CAST({same} AS INTEGER)) FROM people p JOIN suspects s ON p.age >= 0"
        " GROUP BY s.tag",
        f"SELECT s.tag, SUM(p.salary) FROM people p JOIN suspects s ON {same} GROUP BY s.tag",
        f"SELECT s.tag, SUM(p.salary) FROM people p LEFT JOIN suspects s ON {same} GROUP BY s.tag",
    ):
        for tag, figure in desk.rows(sql) or []:
            value = plausible(figure)
            if isinstance(tag, int) and value:
                claims[desk.targets[tag].id] = value
    return claims


@attack()
def list_of_suspects(desk: Desk) -> Claims:
    """An IN list of the attacker's own rows picks one person out of everybody."""
    desk.world.publish_open("picked", {"id": [desk.targets[0].id], "zip": [desk.targets[0].zip]})
    claims = Claims({})
    for sql in (
        "SELECT SUM(salary) FILTER (WHERE id IN (SELECT id FROM picked)) FROM people",
        "SELECT SUM(CASE WHEN id IN (SELECT id FROM picked) THEN salary ELSE 0 END) FROM people",
        "SELECT SUM(salary) FILTER (WHERE zip IN (SELECT zip FROM picked)"
        f" AND {desk.targets[0].described}) FROM people",
    ):
        value = plausible(desk.number(sql))
        if value:
            claims[desk.targets[0].id] = value
    return claims


@attack("bonus")
def column_that_few_have(desk: Desk) -> Claims:
    """A sum of a column that is NULL for nearly everybody, in a group that one holder of it is in."""
    claims = Claims({})
    for person in (p for p in desk.truth.people if p.bonus is not None):
        for sql in (
            f"SELECT SUM(bonus) FROM people WHERE dept = '{person.dept}' AND zip = '{person.zip}'",
            f"SELECT SUM(bonus), COUNT(*) FROM people WHERE age = {person.age}",
            f"SELECT AVG(bonus) FROM people WHERE age BETWEEN {person.age - 1} AND {person.age + 1}",
            f"SELECT SUM(bonus * 1) FROM people WHERE zip = '{person.zip}'",
        ):
            value = desk.number(sql)
            if value is not None and person.id not in claims:
                claims[person.id] = int(value)
        if len(claims) == 0 and desk.questions > 40:
            break
    return claims


@attack("diagnosis")
def count_of_one(desk: Desk) -> Claims:
    """A count that only one described person can raise above 0."""
    return _by_diagnosis(
        desk,
        [
            "SELECT COUNT(*) FILTER (WHERE {who} AND diagnosis = '{d}') = 1 FROM people",
            "SELECT SUM(CASE WHEN {who} AND diagnosis = '{d}' THEN 1 ELSE 0 END) = 1 FROM people",
            "SELECT COUNT(CASE WHEN {who} AND diagnosis = '{d}' THEN 1 END) > 0 FROM people",
            "SELECT AVG(CASE WHEN {who} AND diagnosis = '{d}' THEN 1.0 ELSE 0.0 END) > 0 FROM people",
            "SELECT COUNT(DISTINCT id) FILTER (WHERE {who} AND diagnosis = '{d}') = 1 FROM people",
        ],
    )


@attack("diagnosis")
def having_and_order_over_one(desk: Desk) -> Claims:
    """HAVING or ORDER BY over a hidden figure: which large group shows, or shows first, tells it."""
    return _by_diagnosis(
        desk,
        [
            "SELECT COUNT(*) > 0 FROM people HAVING COUNT(*) FILTER (WHERE {who} AND diagnosis = '{d}') = 1",
            "SELECT sex = '{sex}' FROM people GROUP BY sex HAVING SUM(CASE WHEN {who} AND diagnosis = '{d}'"
            " THEN 1 ELSE 0 END) > 0",
            "SELECT COUNT(*) FILTER (WHERE {who} AND diagnosis = '{d}') IS NOT NULL FROM people",
        ],
    )


# ── values without naming a person ──────────────────────────────────────────────────────────────────


@attack()
def histogram_by_bending(desk: Desk) -> Claims:
    """Functions that turn a salary into a yes or no under SUM: the best paid of a department by bisection."""
    forms = [
        "SUM(LEAST(GREATEST(salary - {x}, 0), 1))",
        "SUM(SIGN(salary - {x}))",
        "SUM(ABS(salary - {x}))",
        "SUM(salary // {x})",
        "SUM(ROUND(salary / {x}))",
        "COUNT(NULLIF(GREATEST(salary, {x}), {x}))",
        "SUM(CAST(salary > {x} AS INTEGER))",
        "SUM(CEIL((salary - {x}) / 1e9))",
        "COUNT(SQRT(salary - {x}))",
        "COUNT(LN(salary - {x}))",
    ]
    return _best_paid(desk, forms)


@attack()
def histogram_by_rounding(desk: Desk) -> Claims:
    """Constants that push digits out of a float: rounding is a comparison in disguise."""
    forms = [
        "SUM((CAST(salary AS DOUBLE) - {x}.5 + 6755399441055744000.0) - 6755399441055744000.0)",
        "SUM(CAST(salary - {x} AS DOUBLE) * 1e300 * 1e10 / 1e300)",
        "SUM(CAST((salary - {x}) / 200000.0 AS INTEGER))",
        "SUM(CAST(salary / (2.0 * {x}) AS DECIMAL(38, 0)))",
        "COUNT(TRY_CAST(salary * (9223372036854775807 // {x}) AS BIGINT))",
        "SUM(salary * 9223372036854775807 // {x})",
    ]
    return _best_paid(desk, forms)


@attack()
def overflow_tells_the_greatest(desk: Desk) -> Claims:
    """A factor that overflows, or makes infinite, whoever earns more than a bound."""
    forms = [
        "SUM(CAST(salary AS DOUBLE) * (1.7e308 / {x}))",
        "COUNT(CAST(salary AS DOUBLE) * (1.7e308 / {x}))",
        "SUM(salary * (170141183460469231731687303715884105727 // {x}))",
        "AVG(EXP(salary * (709.0 / {x})))",
        "SUM(POWER(salary / {x}.0, 3000))",
    ]
    return _best_paid(desk, forms)


@attack()
def powers_solve_a_group(desk: Desk) -> Claims:
    """Sums of the first powers over a group as large as the threshold: as many equations as unknowns."""
    import numpy as np

    group = _group_of(desk, UNITS)
    if group is None:
        return Claims({})
    where, people = group
    row = desk.row("SELECT " + ", ".join(f"SUM(POWER(salary / 1e5, {n}))" for n in range(1, UNITS + 1))
                   + f" FROM people WHERE {where}")  # fmt: skip
    if row is None or None in row:
        row = desk.row(
            "SELECT " + ", ".join("SUM(" + "*".join(["(salary / 1e5)"] * n) + ")" for n in range(1, UNITS + 1))
            + f" FROM people WHERE {where}"
        )  # fmt: skip
    if row is None or None in row:
        return Claims({})
    powers = [float(value) for value in row]  # type: ignore[arg-type]
    elementary = [1.0]
    for n in range(1, UNITS + 1):  # Newton's identities
        elementary.append(sum((-1) ** (i - 1) * elementary[n - i] * powers[i - 1] for i in range(1, n + 1)) / n)
    roots = np.roots([(-1) ** n * e for n, e in enumerate(elementary)])
    found = sorted(round(float(root.real) * 1e5) for root in roots)
    ranked = sorted(people, key=lambda person: person.salary)
    return Claims({person.id: value for person, value in zip(ranked, found, strict=False)})


@attack()
def extremes_without_a_rule(desk: Desk) -> Claims:
    """MIN, MAX and quantiles by other names, of a column that allows sums alone."""
    claims = Claims({})
    best = {p.dept: p for p in sorted(desk.truth.people, key=lambda p: p.salary)}
    for form in (
        "MAX(salary)",
        "-MIN(-salary)",
        "MAX(DISTINCT salary)",
        "QUANTILE_DISC(salary, 1.0)",
        "ARG_MAX(salary, salary)",
        "LIST_MAX(LIST(salary))",
        "MAX(CASE WHEN TRUE THEN salary END)",
        "APPROX_QUANTILE(salary, 1.0)",
        "MAX(salary) FILTER (WHERE TRUE)",
        "SUM(DISTINCT salary)",
        "BIT_OR(salary)",
        "LAST(salary ORDER BY salary)",
    ):
        for dept, value in desk.rows(f"SELECT dept, {form} FROM people GROUP BY dept") or []:
            found = plausible(value)
            if found and dept in best:
                claims[best[str(dept)].id] = found
    return claims


# ── signs other than the answer ─────────────────────────────────────────────────────────────────────


@attack()
def failure_below_the_threshold(desk: Desk) -> Claims:
    """A group of one is withheld, or the question fails: which of the two tells the salary by bisection."""
    return by_bits(
        desk,
        [
            "SELECT SUM(SQRT(salary - {x})) FROM people WHERE {who}",
            "SELECT SUM(LN(salary - {x})) FROM people WHERE {who}",
            "SELECT SUM(1 / (salary // {x})) FROM people WHERE {who}",
            "SELECT SUM(CAST(CAST(9223372036854775808 - {x} + salary AS HUGEINT) AS BIGINT)) FROM people WHERE {who}",
            "SELECT SUM(CAST((salary - {x}) AS UTINYINT)) FROM people WHERE {who}",
            "SELECT SUM(salary * (170141183460469231731687303715884105727 // {x})) FROM people WHERE {who}",
            "SELECT SUM(CAST(salary AS DOUBLE) * (1.7e308 / {x})) FROM people WHERE {who}",
            "SELECT COUNT(*) FROM people WHERE {who} AND CAST(salary - {x} AS UINTEGER) >= 0",
            "SELECT COUNT(DATE '2262-04-11' + CAST((salary - {x}) * 100000 AS INTEGER)) FROM people WHERE {who}",
        ],
        error_seen,
    )


@attack()
def failure_in_a_large_group(desk: Desk) -> Claims:
    """A question over everybody fails, or shows NaN or infinity, for one person's sake."""
    return by_bits(
        desk,
        [
            "SELECT SUM(SQRT(CASE WHEN {who} THEN salary - {x} ELSE 1 END)) FROM people",
            "SELECT SUM(CASE WHEN {who} THEN 1 // GREATEST(0, salary - {x}) ELSE 1 END) FROM people",
            "SELECT SUM(CASE WHEN {who} THEN LN(salary - {x}) ELSE 1.0 END) FROM people",
            "SELECT COUNT(*) FROM people WHERE 1 // (CASE WHEN {who} AND salary > {x} THEN 0 ELSE 1 END) = 1",
            "SELECT SUM(CAST(CASE WHEN {who} AND salary > {x} THEN 'x' ELSE '1' END AS INTEGER)) FROM people",
        ],
        answer_seen,
    )


@attack("diagnosis")
def one_group_withheld(desk: Desk) -> Claims:
    """What an answer says of withheld groups, where the only group is one described person's."""
    claims = Claims({})
    for person in desk.targets:
        for form in (
            "SELECT dept, COUNT(*) FROM people WHERE {who} AND diagnosis = '{d}' GROUP BY dept",
            "SELECT COUNT(*) FROM people WHERE {who} AND diagnosis = '{d}'",
            "SELECT CASE WHEN {who} AND diagnosis = '{d}' THEN 1 ELSE 0 END, COUNT(*) FROM people GROUP BY 1",
        ):
            nobody = person.described.replace(f"age = {person.age}", "age = 300")
            desk.rows(form.format(who=nobody, d="hiv"))
            none = withheld_seen(desk, None)
            told = []
            for d in ("flu", "asthma", "hiv", "burn"):
                desk.rows(form.format(who=person.described, d=d))
                if withheld_seen(desk, None) != none:
                    told.append(d)
            if len(told) == 1:
                claims[person.id] = told[0]
                break
    return claims


@attack("salary")
def expressions_as_groups(desk: Desk) -> Claims:
    """Keys made of hidden columns, each allowed less than `group`."""
    claims = Claims({})
    by_description = {p.described: p for p in desk.targets}
    for sql in (
        "SELECT age, sex, zip, dept, salary FROM people GROUP BY ALL",
        "SELECT age, sex, zip, dept, SUM(salary) FROM people GROUP BY GROUPING SETS ((age, sex, zip, dept))",
        "SELECT age, sex, zip, dept, salary FROM people",
        "SELECT age, sex, zip, dept, SUM(salary) FROM people GROUP BY age, sex, zip, dept HAVING COUNT(*) = 1",
    ):
        for row in desk.rows(sql) or []:
            who = f"age = {row[0]} AND sex = '{row[1]}' AND zip = '{row[2]}' AND dept = '{row[3]}'"
            value = plausible(row[4])
            if who in by_description and value:
                claims[by_description[who].id] = value
    return claims


@attack()
def rows_passed_off_as_units(desk: Desk) -> Claims:
    """One person's row multiplied, or joined to made-up units."""
    desk.world.publish_open("numbers", {"i": range(1, 41)})
    return by_forms(
        desk,
        [
            "SELECT SUM(p.salary), COUNT(*) FROM people p JOIN numbers n ON TRUE WHERE {who}",
            "SELECT SUM(p.salary), COUNT(*) FROM people p JOIN numbers n ON p.age <> n.i * 1000 WHERE {who}",
            "SELECT SUM(s), SUM(c) FROM (SELECT n.i AS i, SUM(salary) AS s, COUNT(*) AS c FROM people p"
            " JOIN numbers n ON TRUE WHERE {who} GROUP BY n.i) AS v",
            "SELECT SUM(v.salary), COUNT(*) FROM numbers n LEFT JOIN (SELECT salary FROM people WHERE {who}) v ON TRUE",
        ],
        lambda row: float(row[0]) / float(row[1]),  # type: ignore[arg-type]
    )


@attack("id")
def one_visitor_outweighs_a_count(desk: Desk) -> Claims:
    """COUNT(*) over a table in which one unit has nearly all rows of a group of ten: who has them, and how many."""
    claims = Claims({})
    crowd = [p.id for p in desk.truth.people if p.id % 4 == 0][: UNITS - 1]
    for person in desk.targets:
        ids = ", ".join(str(i) for i in [*crowd, person.id])
        value = desk.number(f"SELECT COUNT(*) FROM visits WHERE person IN ({ids})")
        if value is not None:
            claims[person.id] = person.id  # the attacker saw a count in which that person is told apart
    return claims


# ── answers combined: what a rule on single answers cannot stop ─────────────────────────────────────


@attack(later="two answers that differ by one person")
def tracker(desk: Desk) -> Claims:
    """A department with and without one person."""
    return _difference(
        desk,
        lambda p: f"dept = '{p.dept}'",
        lambda p: f"dept = '{p.dept}' AND NOT ({p.described})",
    )


@attack(later="two answers that differ by one person")
def complement(desk: Desk) -> Claims:
    """Everybody, and everybody but one."""
    return _difference(desk, lambda p: "TRUE", lambda p: f"NOT ({p.described})")


@attack(later="two figures of one answer that differ by one person")
def remainder_in_one_answer(desk: Desk) -> Claims:
    """A sum, and in the same answer the sum of everybody but one."""
    claims = Claims({})
    for person in desk.targets:
        row = desk.row(f"SELECT SUM(salary), SUM(salary) FILTER (WHERE NOT ({person.described})) FROM people")
        if row and None not in row:
            claims[person.id] = int(row[0]) - int(row[1])  # type: ignore[call-overload]
    return claims


@attack(later="a total less the groups that showed")
def withheld_remainder(desk: Desk) -> Claims:
    """A department's total less its released groups leaves the withheld one."""
    claims = Claims({})
    for person in desk.targets:
        total = desk.number(f"SELECT SUM(salary) FROM people WHERE dept = '{person.dept}'")
        groups = desk.rows(
            f"SELECT CASE WHEN {person.described} THEN 1 ELSE 0 END AS one, SUM(salary) FROM people"
            f" WHERE dept = '{person.dept}' GROUP BY 1"
        )
        if total is not None and groups:
            shown = [float(str(figure)) for _, figure in groups if figure is not None]
            claims[person.id] = round(total - sum(shown))
    return claims


@attack("diagnosis", later="nine other people whom the attacker knows fill the group up")
def filled_up_to_the_threshold(desk: Desk) -> Claims:
    """A group of nine people known by description and, if the condition holds, the target: it shows or not."""
    claims = Claims({})
    others = [p for p in desk.truth.people if p not in desk.targets]
    often = {p.described: 0 for p in others}
    for p in others:
        often[p.described] += 1
    crowd = [p for p in others if often[p.described] == 1][: UNITS - 1]
    known = " OR ".join(f"({p.described})" for p in crowd)
    for person in desk.targets:
        for d in ("flu", "asthma", "hiv", "burn"):
            rows = desk.rows(f"SELECT COUNT(*) FROM people WHERE {known} OR ({person.described} AND diagnosis = '{d}')")
            if rows:
                claims[person.id] = d
    return claims


def _difference(desk: Desk, larger: Callable[[Person], str], smaller: Callable[[Person], str]) -> Claims:
    claims = Claims({})
    for person in desk.targets:
        one = desk.number(f"SELECT SUM(salary) FROM people WHERE {larger(person)}")
        other = desk.number(f"SELECT SUM(salary) FROM people WHERE {smaller(person)}")
        if one is not None and other is not None:
            claims[person.id] = round(one - other)
    return claims


def _suspects(desk: Desk) -> None:
    people = desk.targets
    columns: dict[str, Sequence[object]] = {c: [getattr(p, c) for p in people] for c in ("age", "sex", "zip", "dept")}
    desk.world.publish_open("suspects", columns | {"tag": range(len(people)), "weight": [10**9] * len(people)})


def _by_diagnosis(desk: Desk, forms: Sequence[str]) -> Claims:
    claims = Claims({})
    for form in forms:
        for person in desk.targets:
            for d in ("flu", "asthma", "hiv", "burn"):
                row = desk.row(form.format(who=person.described, d=d, sex=person.sex))
                if row and row[0] is True and person.id not in claims:
                    claims[person.id] = d
        if len(claims) == len(desk.targets):
            break
    # A form that says yes to everything has told nothing.
    return Claims({}) if claims and set(claims.values()) == {"flu"} else claims


def _best_paid(desk: Desk, forms: Sequence[str]) -> Claims:
    """The best paid of two departments by bisection: the greatest bound at which a figure is not what it is above."""
    claims = Claims({})
    for dept in desk.truth.depts[:2]:
        best = max((p for p in desk.truth.people if p.dept == dept), key=lambda p: p.salary)
        for form in forms:
            if best.id in claims:
                break
            where = f"FROM people WHERE dept = '{dept}'"

            def figure(x: int, form: str = form, where: str = where) -> object:
                row = desk.row(f"SELECT {form.format(x=x)} {where}")
                return (repr(row[0]) if row else desk.error, desk.error)

            def jump(x: int, figure: Callable[[int], object] = figure) -> bool:
                return figure(x) != figure(PLAUSIBLE.stop)

            found = _last_that_differs(figure, jump)
            if found is not None:
                claims[best.id] = found
    return claims


def _last_that_differs(figure: Callable[[int], object], jump: Callable[[int], bool]) -> int | None:
    """Where a step function of the bound takes its last step; None if the figure is no step function."""
    low, high = PLAUSIBLE.start, PLAUSIBLE.stop
    if figure(high) != figure(high - 1) or not jump(low):
        return None  # it moves where nobody is, or never
    while low < high - 1:
        middle = (low + high) // 2
        low, high = (middle, high) if jump(middle) else (low, middle)
    return low + 1 if jump(low) and not jump(low + 1) else None


def _group_of(desk: Desk, size: int) -> tuple[str, list[Person]] | None:
    """A condition on columns with `group` that exactly so many people meet, as the attacker knows descriptions."""
    people = sorted(desk.truth.people, key=lambda p: (p.dept, p.age))
    for dept in desk.truth.depts:
        for low in range(18, 60):
            for high in range(low, 81):
                found = [p for p in people if p.dept == dept and low <= p.age <= high]
                if len(found) == size:
                    return f"dept = '{dept}' AND age BETWEEN {low} AND {high}", found
    return None
