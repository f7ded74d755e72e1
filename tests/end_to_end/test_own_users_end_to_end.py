# SPDX-License-Identifier: Apache-2.0
"""A party's own users learn of its private data what its rules allow them; operators are under no rule at home."""

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from pooled import Pooled, command_in

import junto
import junto.cli
from junto.client import Desk
from junto.errors import Refused, UnsupportedSQL
from junto.link import methods
from junto.plan.steps import Query, Release, encode
from junto.tasks.coarse import coarse_bytes, coarse_seconds
from junto.trust.rights import OPERATOR, Rights

IDS = list(range(60))
_TABLE = pa.table(
    {
        "id": IDS,
        "dept": ["heart"] * 40 + ["lung"] * 16 + ["eye"] * 4,  # the last is too small
        "phone": [f"+4712345{i:03}" for i in IDS],
        "salary": [1000 + i for i in IDS],
        "age": [20 + i for i in IDS],
    }
)
_OTHER = pa.table({name: column.slice(0, 56) for name, column in zip(_TABLE.column_names, _TABLE.columns, strict=True)})
_RULES: list[dict[str, object]] = [
    {"columns": ["dept", "age"], "allow": "group"},
    {"columns": ["salary"], "allow": "aggregate"},
    {"columns": ["salary"], "allow": "extremes", "to": ["@clinicians"], "units": 15},
    {"columns": ["id", "dept"], "allow": "rows", "to": ["@registrars"]},
]
_GROUPED = "SELECT dept, count(*) AS n, sum(salary) AS s FROM ann.people GROUP BY dept ORDER BY dept"


@pytest.fixture(scope="module")
def world() -> Iterator[Pooled]:
    with Pooled(["ann", "bea", "cyd"]) as consortium:
        consortium.share("people", {"ann": _TABLE, "bea": _OTHER, "cyd": _OTHER}, _RULES, unit="id")
        home = consortium.home("ann")
        home.add_user("intern", time.time())
        home.add_user("doc", time.time(), rights=Rights(roles=("clinicians",)))
        home.add_user("reg", time.time(), rights=Rights(roles=("registrars",)))
        yield consortium


@pytest.fixture
def intern(world: Pooled) -> Iterator[Desk]:
    with junto.connect(world.home("ann").path, user="intern") as desk:
        yield desk


def _as(world: Pooled, user: str) -> Desk:
    return junto.connect(world.home("ann").path, user=user)


@pytest.mark.parametrize(
    "question",
    [
        "SELECT id, phone, salary FROM ann.people",
        "SELECT phone FROM ann.people WHERE id = 7",
        "SELECT max(phone) FROM ann.people",
        "SELECT count(DISTINCT phone) FROM ann.people",
        "SELECT n FROM (SELECT phone AS n, count(*) FROM ann.people GROUP BY phone)",
        "WITH p AS (SELECT phone FROM ann.people) SELECT * FROM p",
        "SELECT dept, max(salary) FROM ann.people GROUP BY dept",
    ],
)
def test_a_user_reads_no_row_of_the_own_party_without_a_rule(world: Pooled, intern: Desk, question: str) -> None:
    with pytest.raises((Refused, UnsupportedSQL)):
        intern.sql(question).run(deadline="20s")
    assert world.ask("ann", question).table.num_rows > 0  # an operator is under no rule


def test_a_plan_written_for_an_operator_is_refused_to_a_user(world: Pooled, intern: Desk) -> None:
    for question in ("SELECT id, phone FROM ann.people", _GROUPED.replace("n,", "n, count(DISTINCT age) AS m,")):
        plan = world["ann"].sql(question).plan
        with pytest.raises(Refused, match=r"ann refuses its own user: .* row by row"):
            intern.wait(intern.submit(plan, seconds=20.0, purpose="", priority=0))


def test_groups_of_own_rows_need_the_units_that_the_rules_ask_for(world: Pooled, intern: Desk) -> None:
    assert [row["dept"] for row in intern.sql(_GROUPED).run().table.to_pylist()] == ["heart", "lung"]
    assert world.ask("ann", _GROUPED).table.num_rows == 3
    for one in (7, 1007):
        lonely = f"SELECT sum(salary) AS s FROM ann.people WHERE age = {20 + one}"
        assert intern.sql(lonely).run().table.num_rows == 0


def test_a_crafted_release_of_own_groups_is_held_back_too(world: Pooled, intern: Desk) -> None:
    """The plan of an operator for one own group has no threshold; whoever hands it over, the node holds groups back."""
    plan = intern.sql("SELECT sum(salary) AS s FROM ann.people WHERE age = 27").plan
    assert all(isinstance(step, Query | Release) for step in plan.steps)
    assert intern.wait(intern.submit(plan, seconds=20.0, purpose="", priority=0)).table.num_rows == 0
    assert world["ann"].wait(world["ann"].submit(plan, seconds=20.0, purpose="", priority=0)).table.num_rows == 1


def test_the_difference_of_all_and_the_others_tells_nothing_of_a_small_own_group(world: Pooled, intern: Desk) -> None:
    grouped = "SELECT dept, count(*) AS n FROM people WHERE age >= 65 OR dept = 'lung' GROUP BY dept ORDER BY dept"
    assert {row["dept"]: row["n"] for row in intern.sql(grouped).run().table.to_pylist()} == {"lung": 48}
    lonely = "SELECT count(*) AS n FROM people WHERE dept = 'eye' OR (dept = 'heart' AND age IN (20, 21, 22, 23, 24))"
    with_own, without = (intern.sql(text).run().table for text in (lonely, lonely.replace("'eye'", "'none'")))
    assert with_own.equals(without)


def test_own_rows_of_too_few_units_do_not_count_beside_those_of_the_others(world: Pooled, intern: Desk) -> None:
    asked = "SELECT count(*) AS n, sum(salary) AS s, min(dept) AS d FROM people WHERE age < {}"
    rule = {"columns": ["dept"], "allow": "extremes"}
    world.share("staff", {"ann": _TABLE, "bea": _OTHER, "cyd": _OTHER}, [*_RULES, rule], unit="id")
    for few in (6, 9):
        question = asked.format(20 + few).replace("people", "staff")
        (row,) = intern.sql(question).run().table.to_pylist()
        assert row["n"] == 2 * few  # the others' alone
        assert row["s"] == 2 * sum(range(1000, 1000 + few))
        assert world.ask("ann", question).table.to_pylist()[0]["n"] == 3 * few


def test_a_role_has_what_its_rules_allow_and_no_more(world: Pooled) -> None:
    extremes = "SELECT dept, max(salary) AS m FROM ann.people GROUP BY dept ORDER BY dept"
    with _as(world, "doc") as doc, _as(world, "reg") as reg:
        assert doc.sql(extremes).run().table.to_pylist() == [{"dept": "heart", "m": 1039}, {"dept": "lung", "m": 1055}]
        assert reg.sql("SELECT id, dept FROM ann.people ORDER BY id").run().table.num_rows == 60
        groups = "SELECT dept, count(*) AS n, max(id) AS m FROM ann.people GROUP BY dept ORDER BY dept"
        assert reg.sql(groups).run().table.num_rows == 3  # whoever may see the rows may see any of their groups
        with pytest.raises(Refused, match=r"for @registrars: .* allows it only to @clinicians"):
            reg.sql(extremes).run()
        with pytest.raises(Refused, match="for @clinicians"):
            doc.sql("SELECT id FROM ann.people").run()


def test_a_role_of_one_party_is_none_of_another(world: Pooled) -> None:
    home = world.home("bea")
    home.add_user("doc", time.time(), rights=Rights(roles=("clinicians", "registrars")))
    with junto.connect(home.path, user="doc") as desk, pytest.raises(Refused, match="ann refuses bea"):
        desk.sql("SELECT id, dept FROM ann.people").run()


def test_a_change_of_rights_holds_from_the_next_question_on(world: Pooled, intern: Desk) -> None:
    home, rows = world.home("ann"), "SELECT id, dept FROM ann.people"
    home.change_user("intern", Rights(roles=("registrars",)))
    assert intern.sql(rows).run().table.num_rows == 60
    home.change_user("intern", OPERATOR)
    assert intern.sql("SELECT phone FROM ann.people").run().table.num_rows == 60
    home.change_user("intern", Rights())
    with pytest.raises(Refused):
        intern.sql(rows).run()


def test_a_grant_to_a_role_mends_the_refusal_that_proposes_it(world: Pooled) -> None:
    question = "SELECT phone FROM ann.people"
    with _as(world, "doc") as doc, _as(world, "reg") as reg:
        with pytest.raises(Refused) as caught:
            doc.sql(question).run()
        for command in command_in(str(caught.value).replace("refuses its own user", "refuses ann"), "ann"):
            assert "@clinicians" in command
            assert junto.cli.run([*command, "--user", "analyst", "--home", str(world.home("ann").path)]) == 0
        assert doc.sql(question).run().table.num_rows == 60
        with pytest.raises(Refused):
            reg.sql(question).run()


def test_explain_says_what_the_own_rules_must_permit(world: Pooled, intern: Desk) -> None:
    told = str(intern.sql(_GROUPED).explain())
    assert "salary" in told.partition("What owners must permit")[2]
    assert "too few units are left out for this user" in told
    assert "nothing" in str(world["ann"].sql(_GROUPED).explain()).partition("What owners must permit")[2]


def test_an_owner_counts_a_users_own_rows_by_the_parties_that_the_rule_asks_for(world: Pooled, intern: Desk) -> None:
    rules: list[dict[str, object]] = [{"columns": ["salary"], "allow": "aggregate", "parties": 2}]
    world.share("pay", {"ann": _TABLE, "bea": _OTHER, "cyd": _OTHER}, rules, unit="id")
    assert intern.sql("SELECT sum(salary) AS s FROM pay").run().table.num_rows == 1
    plan = world["ann"].sql("SELECT sum(salary) AS s FROM ann.pay GROUP BY salary > 0").plan  # an operator's
    with pytest.raises(Refused):
        intern.wait(intern.submit(plan, seconds=20.0, purpose="", priority=0))
    with pytest.raises(junto.JuntoError, match="2 parties"):
        intern.sql("SELECT sum(salary) AS s FROM ann.pay").run()


def test_a_user_asks_only_for_purposes_that_an_operator_listed(world: Pooled, intern: Desk) -> None:
    rules: list[dict[str, object]] = [{"columns": ["salary"], "allow": "aggregate", "purpose": ["fleet safety"]}]
    world.share("safety", {"bea": _TABLE, "cyd": _OTHER}, rules, unit="id")
    question = "SELECT sum(salary) AS s FROM safety"
    with pytest.raises(Refused, match=r"intern of ann may not ask for 'fleet safety'.*user change intern --purpose"):
        intern.sql(question, purpose="fleet safety").run()
    world.home("ann").change_user("intern", Rights(purposes=("fleet safety",)))
    assert intern.sql(question, purpose="fleet safety").run().table.num_rows == 1
    with pytest.raises(Refused, match="marketing"):
        intern.sql(question, purpose="marketing").run()
    world.home("ann").change_user("intern", Rights())
    assert world["ann"].sql(question, purpose="fleet safety").run().table.num_rows == 1  # an operator's


def test_what_a_user_states_is_never_taken_from_the_plan(world: Pooled, intern: Desk) -> None:
    plan = intern.sql("SELECT id, phone FROM ann.people").plan
    forged = msgspec.json.encode({**msgspec.json.decode(encode(plan)), "user": "analyst"})
    with pytest.raises(junto.JuntoError):
        intern.request("user.ask", b'{"plan":' + forged + b',"seconds":20}')


def test_users_see_their_own_questions_and_operators_all(world: Pooled, intern: Desk) -> None:
    others = "SELECT sum(salary) AS s FROM ann.people WHERE age < 41"
    theirs = world.ask("ann", others).task
    foreign = world.ask("bea", others.replace("ann.people", "people")).task
    mine = intern.sql("SELECT sum(salary) AS s FROM ann.people WHERE age < 42").run().task
    assert {t.user for t in intern.tasks()} == {"intern"}
    assert mine in {t.task for t in intern.tasks()}
    seen = {t.task for t in world["ann"].tasks()}
    assert {mine, theirs, foreign} <= seen
    for task in (theirs, foreign):
        with pytest.raises(Refused, match="only they, or an operator of ann"):
            intern.task(task)
        with pytest.raises(Refused):
            next(iter(intern.stream(methods.USER_WATCH, methods.Which(task), seconds=5.0)))
    notices = intern.notices(tasks=[theirs, foreign, mine], kinds=["ended"], past_seconds=600.0)
    assert next(notices).task == mine  # those of the two before are not told
    trigger = world["ann"].triggers.create("nightly", world["ann"].sql(others), cron="0 3 * * *")
    assert intern.triggers.all() == ()
    assert [one.name for one in world["ann"].triggers.all()] == [trigger.name]


def test_confirmations_tell_no_exact_seconds_or_bytes(world: Pooled) -> None:
    answer = world.ask("ann", "SELECT dept, sum(salary) AS s FROM people GROUP BY dept")
    parts = world["ann"].task(answer.task).parts
    assert parts
    for part in parts:
        assert part.seconds == coarse_seconds(part.seconds)
        assert part.bytes == coarse_bytes(part.bytes)
    assert answer.receipt.seconds == coarse_seconds(answer.receipt.seconds)


def test_an_operator_elsewhere_publishes_only_what_lies_in_the_data_folder(world: Pooled, tmp_path: Path) -> None:
    home = world.home("ann")
    (tmp_path / "t.csv").write_text("id,x\n" + "".join(f"{i},{i}\n" for i in range(20)))
    described = '[dataset.loose]\nsource = "{}"\nunit = "id"\n'
    outside = tmp_path / "t.toml"
    outside.write_text(described.format("t.csv"))
    exported = tmp_path / "analyst.profile"
    exported.write_bytes(msgspec.json.encode(home.profile("analyst")))
    exported.chmod(0o600)
    inside = home.data_path / "t.toml"
    with junto.connect(profile=exported) as far:
        with pytest.raises(Refused, match="data_folders"):
            far.publish(outside)
        for source in (tmp_path / "t.csv", tmp_path / "*.csv", home.data_path / "loop.csv", tmp_path / "none.csv"):
            inside.write_text(described.format(source))
            (home.data_path / "loop.csv").unlink(missing_ok=True)
            (home.data_path / "loop.csv").symlink_to(tmp_path / "t.csv")
            with pytest.raises(Refused, match="data_folders"):
                far.publish(inside)
        assert "loose" not in {d.name for d in far.datasets()}
        (home.data_path / "loop.csv").unlink()
        (home.data_path / "t.csv").write_bytes((tmp_path / "t.csv").read_bytes())
        inside.write_text(described.format("t.csv"))
        assert far.publish(inside).published[0].name == "loose"
    assert world["ann"].publish(outside).published[0].name == "loose"  # with the home at hand, any file
    assert not list(home.data_path.glob(".here-*"))
