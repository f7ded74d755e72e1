# SPDX-License-Identifier: Apache-2.0
"""Rules and their judgement: a table of cases, and a slow plain model that must agree."""

import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from junto.errors import InvalidInput
from junto.trust.allow import KINDS, Allow
from junto.trust.grants import Grant, GrantId
from junto.trust.rules import Need, Rule, Verdict, judge, refused_line
from junto.types import DatasetName, PartyId

UNITED, BTS, FAA, DELTA = (PartyId(name) for name in ("united", "bts", "faa", "delta"))
FLIGHTS = DatasetName("flights")
NOON = 1_750_000_000.0


def need(column: str, allow: Allow, clause: str = "SELECT …") -> Need:
    return Need(UNITED, FLIGHTS, column, allow, clause)


def grant(columns: tuple[str, ...], allow: Allow, **more: object) -> Grant:
    fields = {
        "id": "g1",
        "party": UNITED,
        "to": (BTS,),
        "dataset": FLIGHTS,
        "columns": columns,
        "allow": allow,
        "not_before": NOON - 1,
        "until": NOON + 1,
    }
    return msgspec.convert({**fields, **more}, Grant)


def judged(
    rules: list[Rule],
    needs: list[Need],
    *,
    grants: list[Grant] | None = None,
    recipients: tuple[PartyId, ...] = (BTS,),
    purpose: str = "",
    used: dict[GrantId, int] | None = None,
) -> Verdict:
    return judge(
        FLIGHTS,
        rules,
        grants or [],
        needs,
        recipients=recipients,
        asker=BTS,
        purpose=purpose,
        now=NOON,
        used=used,
    )


# ── which kind serves which ─────────────────────────────────────────────────────────────────────────

SERVED: dict[Allow, set[Allow]] = {
    "group": {"group", "filter"},
    "filter": {"filter"},
    "aggregate": {"aggregate"},
    "extremes": {"extremes"},
    "match": {"match"},
    "rows": {"rows", "group", "filter", "aggregate", "extremes"},
    "open": {"group", "filter", "aggregate", "extremes", "match", "rows", "open"},
}


@pytest.mark.parametrize(("allow", "needed"), list(itertools.product(KINDS, KINDS)))
def test_a_rule_serves_its_kind_and_what_it_implies_and_nothing_else(allow: Allow, needed: Allow) -> None:
    rule = Rule(("a",), allow, to=(BTS,) if allow == "rows" else ())
    assert judged([rule], [need("a", needed)]).allowed == (needed in SERVED[allow])
    assert judged([], [need("a", needed)], grants=[grant(("a",), allow)]).allowed == (needed in SERVED[allow])


def test_without_rules_everything_is_refused() -> None:
    for kind in KINDS:
        assert not judged([], [need("a", kind)]).allowed
    assert not judged([], [need("*", "aggregate")]).allowed


def test_every_need_must_be_met() -> None:
    rules = [Rule(("a",), "group"), Rule(("b",), "aggregate")]
    verdict = judged(rules, [need("a", "group"), need("b", "aggregate"), need("c", "aggregate")])
    assert [refusal.need.column for refusal in verdict.refusals] == ["c"]
    assert judged(rules, [need("a", "group"), need("b", "aggregate")]).allowed


def test_every_recipient_must_be_served() -> None:
    rule = Rule(("a",), "rows", to=(FAA, BTS))
    assert judged([rule], [need("a", "rows")], recipients=(FAA, BTS)).allowed
    verdict = judged([rule], [need("a", "rows")], recipients=(FAA, DELTA, BTS))
    assert verdict.refusals[0].recipients == (DELTA,)


def test_two_rules_may_serve_two_recipients_of_one_need() -> None:
    rules = [Rule(("a",), "rows", to=(FAA,)), Rule(("a",), "rows", to=(BTS,))]
    assert judged(rules, [need("a", "rows")], recipients=(FAA, BTS)).allowed


def test_an_owner_may_learn_its_own_data() -> None:
    assert judged([], [need("a", "rows")], recipients=(UNITED,)).allowed
    assert not judged([], [need("a", "rows")], recipients=(UNITED, BTS)).allowed


def test_a_purpose_must_be_one_of_the_rules() -> None:
    rule = Rule(("a",), "match", purpose=("fleet-safety", "audit"))
    assert judged([rule], [need("a", "match")], purpose="audit").allowed
    assert not judged([rule], [need("a", "match")], purpose="marketing").allowed
    assert not judged([rule], [need("a", "match")]).allowed


def test_a_star_rule_is_for_every_column() -> None:
    assert judged([Rule(("*",), "aggregate")], [need("any", "aggregate")]).allowed
    assert not judged([Rule(("*",), "aggregate")], [need("any", "group")]).allowed


@pytest.mark.parametrize(("allow", "counted"), [("aggregate", True), ("group", True), ("filter", False)])
def test_rows_may_be_counted_where_any_rule_lets_counts_out(allow: Allow, counted: bool) -> None:
    assert judged([Rule(("a",), allow)], [need("*", "aggregate")]).allowed == counted


def test_a_star_need_of_another_kind_is_not_met_by_a_rule_on_one_column() -> None:
    assert not judged([Rule(("a",), "group")], [need("*", "group")]).allowed


def test_a_need_of_another_dataset_or_owner_is_a_mistake() -> None:
    with pytest.raises(InvalidInput, match="united's weather cannot be judged by another's flights rules"):
        judged([], [Need(UNITED, DatasetName("weather"), "a", "rows", "SELECT a")])
    with pytest.raises(InvalidInput, match="delta's flights cannot be judged by another's flights rules"):
        judged([], [need("a", "rows"), Need(DELTA, FLIGHTS, "a", "rows", "SELECT a")])


def test_a_malformed_purpose_is_a_mistake() -> None:
    with pytest.raises(InvalidInput, match="purpose"):
        judged([], [need("a", "rows")], purpose="x; rm -rf /\n")


# ── limits ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_most_permissive_rule_serves_a_need_and_the_strictest_need_sets_the_limits() -> None:
    rules = [
        Rule(("a",), "group", units=30, name="loose"),
        Rule(("a",), "group", units=50, name="tight"),
        Rule(("b",), "aggregate", units=20, parties=3, name="sums"),
    ]
    verdict = judged(rules, [need("a", "group"), need("b", "aggregate")])
    assert (verdict.units, verdict.parties) == (30, 3)
    assert verdict.used_rules == ("loose", "sums")


def test_the_smallest_share_that_a_serving_rule_allows_one_unit_is_the_cap() -> None:
    rules = [
        Rule(("a",), "aggregate", dominance=0.9, name="loose"),
        Rule(("a",), "aggregate", dominance=0.5, name="tight"),
        Rule(("b",), "aggregate", dominance=0.58, name="sums"),
    ]
    assert judged(rules, [need("a", "aggregate")]).dominance == 90
    assert judged(rules, [need("a", "aggregate"), need("b", "aggregate")]).dominance == 58
    assert judged([Rule(("a",), "aggregate")], [need("a", "aggregate")]).dominance == 80
    assert judged([Rule(("a",), "open")], [need("a", "aggregate")]).dominance == 100


def test_what_may_be_seen_row_by_row_asks_for_no_more_than_the_least_threshold() -> None:
    assert judged([Rule(("a",), "open", units=40)], [need("a", "group")]).units == 5
    assert judged([Rule(("a",), "rows", to=(BTS,), units=40)], [need("a", "aggregate")]).units == 5


def test_no_verdict_is_below_five_units() -> None:
    assert judged([], []).units == 5
    assert judged([], [need("a", "rows")], recipients=(UNITED,)).units == 5


# ── grants ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_grant_serves_its_recipient_within_its_time_purpose_and_uses() -> None:
    needs = [need("a", "rows")]
    good = grant(("a",), "rows", purpose=("audit",), uses=2)
    assert judged([], needs, grants=[good], purpose="audit", used={good.id: 1}).used_grants == ("g1",)
    assert not judged([], needs, grants=[good], purpose="audit", used={good.id: 2}).allowed
    assert not judged([], needs, grants=[good], purpose="other").allowed
    assert not judged([], needs, grants=[good], purpose="audit", recipients=(FAA,)).allowed
    assert not judged([], needs, grants=[grant(("a",), "rows", until=NOON)]).allowed
    assert not judged([], needs, grants=[grant(("a",), "rows", not_before=NOON + 0.5)]).allowed
    assert not judged([], needs, grants=[grant(("b",), "rows")]).allowed


def test_another_partys_grant_or_one_on_another_dataset_serves_nothing() -> None:
    assert not judged([], [need("a", "rows")], grants=[grant(("a",), "rows", party=DELTA)]).allowed
    assert not judged([], [need("a", "rows")], grants=[grant(("a",), "rows", dataset="weather")]).allowed


def test_a_grant_is_used_only_where_it_permits_more_than_the_rules() -> None:
    rules = [Rule(("a",), "aggregate", units=10)]
    assert judged(rules, [need("a", "aggregate")], grants=[grant(("a",), "aggregate")]).used_grants == ()
    verdict = judged(rules, [need("a", "aggregate")], grants=[grant(("a",), "aggregate", units=6)])
    assert (verdict.used_grants, verdict.units) == (("g1",), 6)


# ── refusals ────────────────────────────────────────────────────────────────────────────────────────

RULES = [
    Rule(("origin", "month"), "group", name="rule 1"),
    Rule(("dep_delay",), "aggregate", name="delays"),
    Rule(("tailnum",), "match", to=(FAA,), purpose=("fleet-safety",), name="rule 3"),
]


@pytest.mark.parametrize(
    ("column", "allow", "purpose", "rule", "why"),
    [
        ("dep_delay", "rows", "", "delays", "rule delays allows only aggregate"),
        ("carrier", "rows", "", None, "no rule speaks of it"),
        ("tailnum", "match", "fleet-safety", "rule 3", "rule 3 allows it only to faa"),
        (
            "tailnum",
            "match",
            "",
            "rule 3",
            "rule 3 allows it only to faa, only for fleet-safety (asked for no purpose)",
        ),
        (
            "tailnum",
            "rows",
            "sales",
            "rule 3",
            "rule 3 allows only match, only to faa, only for fleet-safety (asked for sales)",
        ),
    ],
)
def test_a_refusal_names_the_nearest_rule_and_why_it_does_not_serve(
    column: str, allow: Allow, purpose: str, rule: str | None, why: str
) -> None:
    refusal = judged(RULES, [need(column, allow)], purpose=purpose).refusals[0]
    assert (refusal.rule, refusal.why) == (rule, why)


def test_the_nearest_rule_is_of_the_kind_asked_for() -> None:
    rules = [Rule(("a",), "group", name="g"), Rule(("a",), "match", to=(FAA,), name="m"), Rule(("a",), "filter")]
    assert judged(rules, [need("a", "match")]).refusals[0].rule == "m"


def test_a_grant_that_just_fails_is_told() -> None:
    def why(**more: object) -> str:
        return (
            judged([], [need("a", "rows")], grants=[grant(("a",), "rows", **more)], used={GrantId("g1"): 3})
            .refusals[0]
            .why
        )

    assert why(until=NOON - 0.5) == "no rule speaks of it; grant g1 has ended"
    assert why(not_before=NOON + 0.5) == "no rule speaks of it; grant g1 has not begun"
    assert why(purpose=("audit",)) == "no rule speaks of it; grant g1 is only for audit (asked for no purpose)"
    assert why(uses=3) == "no rule speaks of it; grant g1 is used up"
    assert why(to=(FAA,)) == "no rule speaks of it"


def test_a_refusal_prints_the_grant_as_a_command_and_as_a_sentence() -> None:
    refusal = judged(RULES, [need("tailnum", "rows")], purpose="fleet-safety").refusals[0]
    assert refusal.command == (
        "junto grant give --dataset flights --columns tailnum --allow rows --to bts"
        " --purpose fleet-safety --until 2025-07-15"
    )
    assert refusal.sentence == "united lets bts have tailnum of flights row by row for fleet-safety until 2025-07-15"


def test_the_line_of_a_refusal_holds_columns_clauses_rules_and_merged_commands() -> None:
    needs = [need("tailnum", "rows", "SELECT tailnum"), need("dep_delay", "rows", "SELECT dep_delay")]
    assert refused_line([judged(RULES, needs)]) == (
        "united refuses bts: tailnum of flights row by row (SELECT tailnum) for bts: rule 3 allows only match,"
        " only to faa, only for fleet-safety (asked for no purpose); dep_delay of flights row by row"
        " (SELECT dep_delay) for bts: rule delays allows only aggregate. To allow it, united would type:"
        " junto grant give --dataset flights --columns tailnum,dep_delay --allow rows --to bts --until 2025-07-15"
    )


def test_a_long_refusal_stays_one_line_and_keeps_every_column_in_its_command() -> None:
    needs = [need(f"c{i}", "rows", f"SELECT\n  c{i} " + "x" * 500) for i in range(9)]
    line = refused_line([judged([], needs)])
    assert "\n" not in line
    assert "; and 5 more. To allow it" in line
    assert "--columns c0,c1,c2,c3,c4,c5,c6,c7,c8 " in line
    assert "x" * 101 not in line


def test_an_allowed_question_has_no_line() -> None:
    with pytest.raises(InvalidInput):
        refused_line([judged([], [])])


# ── rules check themselves ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"columns": []}, "columns is empty"),
        ({"columns": ["a", "a"]}, "names 'a' twice"),
        ({"columns": ["*", "a"]}, "write it alone"),
        ({"columns": ["a\nb"]}, "printable"),
        ({"allow": "everything"}, "Invalid enum value"),
        ({"units": 4}, "from 5 to 10000"),
        ({"units": 10_001}, "from 5 to 10000"),
        ({"parties": 0}, "from 1 to 1000"),
        ({"dominance": 0.4}, "from 0.5 to 1"),
        ({"dominance": 1.1}, "from 0.5 to 1"),
        ({"to": ["United Airlines"]}, "party name"),
        ({"to": ["faa", "faa"]}, "twice"),
        ({"purpose": [""]}, "purpose"),
        ({"purpose": ["a\nb"]}, "purpose"),
        ({"allow": "rows"}, "needs its recipients"),
        ({"allow": "open", "to": ["faa"]}, "is to all"),
        ({"allow": "open", "purpose": ["audit"]}, "is to all"),
        ({"domain": [1, 2], "columns": ["a", "b"]}, "domain"),
        ({"domain": [1, 2], "allow": "aggregate"}, "domain"),
        ({"domain": []}, "domain"),
        ({"noise": 0.8}, "unknown field"),
    ],
)
def test_a_rule_that_contradicts_itself_is_refused_wherever_it_comes_from(
    fields: dict[str, object], message: str
) -> None:
    wire = msgspec.json.encode({"columns": ["a"], "allow": "group", **fields})
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.json.decode(wire, type=Rule)


def test_rules_are_read_as_they_were_written() -> None:
    for rule in (*RULES, Rule(("a",), "group", domain=("x", 1, 2.5, True), units=7, parties=2)):
        assert msgspec.json.decode(msgspec.json.encode(rule), type=Rule) == rule


# ── an independent model ────────────────────────────────────────────────────────────────────────────

PARTIES = (UNITED, BTS, FAA)
COLUMNS = ("a", "b")
PURPOSES = ("audit", "sales")

some_parties = st.lists(st.sampled_from(PARTIES), unique=True, max_size=3).map(tuple)
some_purposes = st.lists(st.sampled_from(PURPOSES), unique=True, max_size=2).map(tuple)
some_columns = st.sampled_from([("a",), ("b",), ("a", "b"), ("*",)])


@st.composite
def a_rule(draw: st.DrawFn) -> Rule:
    allow = draw(st.sampled_from(KINDS))
    to, purpose = draw(some_parties), draw(some_purposes)
    if allow == "open":
        to, purpose = (), ()
    if allow == "rows" and not to:
        to = (BTS,)
    limits = draw(st.tuples(st.sampled_from([5, 7, 10]), st.integers(1, 3)))
    return Rule(draw(some_columns), allow, to, purpose, *limits, name=draw(st.sampled_from("rst")))


@st.composite
def a_grant(draw: st.DrawFn) -> Grant:
    begins, ends = draw(st.sampled_from(((-2, 2), (-2, 2), (-2, 0), (-2, -1), (0, 1), (1, 2))))
    return Grant(
        id=GrantId(draw(st.sampled_from("gh"))),
        party=draw(st.sampled_from((UNITED, UNITED, FAA))),
        to=draw(some_parties.filter(bool)),
        dataset=DatasetName(draw(st.sampled_from(("flights", "flights", "weather")))),
        columns=draw(some_columns),
        allow=draw(st.sampled_from(KINDS)),
        not_before=NOON + begins,
        until=NOON + ends,
        purpose=draw(some_purposes),
        uses=draw(st.sampled_from((None, 1, 2))),
        units=draw(st.sampled_from((5, 8, 10))),
    )


def plainly(
    rules: list[Rule],
    grants: list[Grant],
    needs: list[Need],
    recipients: tuple[PartyId, ...],
    purpose: str,
    used: dict[GrantId, int],
) -> tuple[set[tuple[Need, PartyId]], int, int]:
    """What is not allowed to whom, and the limits: every rule and grant is tried on every need of every recipient."""
    lacking, units, parties = set(), 5, 1
    for wanted in needs:
        for recipient in recipients:
            if recipient == wanted.party:
                continue
            options = []
            for rule in rules:
                if rule.to != () and recipient not in rule.to:
                    continue
                if rule.purpose != () and purpose not in rule.purpose:
                    continue
                if wanted.column == "*" and wanted.allow == "aggregate":
                    good = rule.allow in ("aggregate", "group", "rows", "open")
                else:
                    good = rule.columns == ("*",) or wanted.column in rule.columns
                    good = good and wanted.allow in SERVED[rule.allow]
                if good:
                    options.append((5, 1) if rule.allow in ("rows", "open") else (rule.units, rule.parties))
            for given_ in grants:
                fits = given_.party == wanted.party and given_.dataset == wanted.dataset
                fits = fits and recipient in given_.to and (given_.purpose == () or purpose in given_.purpose)
                fits = fits and given_.not_before <= NOON and given_.until > NOON
                fits = fits and (given_.uses is None or used.get(given_.id, 0) < given_.uses)
                fits = fits and (given_.columns == ("*",) or wanted.column in given_.columns)
                if fits and wanted.allow in SERVED[given_.allow]:
                    options.append((given_.units, 1))
            if not options:
                lacking.add((wanted, recipient))
                continue
            best = sorted(options)[0]
            units, parties = max(units, best[0]), max(parties, best[1])
    return lacking, units, parties


needs_of = st.lists(st.builds(need, st.sampled_from((*COLUMNS, "*")), st.sampled_from(KINDS)), max_size=3)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(
    rules=st.lists(a_rule(), max_size=4),
    grants=st.lists(a_grant(), max_size=3),
    needs=needs_of,
    recipients=some_parties,
    purpose=st.sampled_from(("", *PURPOSES)),
    used=st.dictionaries(st.sampled_from((GrantId("g"), GrantId("h"))), st.integers(0, 2)),
)
def test_the_judge_agrees_with_the_plain_model(
    rules: list[Rule],
    grants: list[Grant],
    needs: list[Need],
    recipients: tuple[PartyId, ...],
    purpose: str,
    used: dict[GrantId, int],
) -> None:
    verdict = judged(rules, needs, grants=grants, recipients=recipients, purpose=purpose, used=used)
    lacking, units, parties = plainly(rules, grants, needs, recipients, purpose, used)
    assert {(refusal.need, party) for refusal in verdict.refusals for party in refusal.recipients} == lacking
    assert verdict.allowed == (not lacking)
    assert (verdict.units, verdict.parties) == (units, parties)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(
    rules=st.lists(a_rule(), max_size=3),
    needs=needs_of,
    recipients=some_parties,
    purpose=st.sampled_from(("", *PURPOSES)),
)
def test_the_grants_a_refusal_proposes_allow_the_question(
    rules: list[Rule], needs: list[Need], recipients: tuple[PartyId, ...], purpose: str
) -> None:
    refused = judged(rules, needs, recipients=recipients, purpose=purpose)
    proposed = [refusal.grant.grant(GrantId(f"g{i}"), UNITED, NOON) for i, refusal in enumerate(refused.refusals)]
    assert judged(rules, needs, grants=proposed, recipients=recipients, purpose=purpose).allowed
