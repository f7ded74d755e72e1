# SPDX-License-Identifier: Apache-2.0
"""Datasets as signed, what their statistics may say, and the view that merges all parties' statements."""

import itertools
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from junto.catalog.dataset import Column, Dataset, Statistics, Withdrawal, permitted, version_of
from junto.catalog.names import meant, nearest
from junto.catalog.view import CatalogView, compare
from junto.errors import InvalidInput, PeerFault
from junto.trust.allow import Allow
from junto.trust.rules import Rule
from junto.types import DatasetName, Digest, PartyId

UNITED, DELTA = PartyId("united"), PartyId("delta")
FLIGHTS = DatasetName("flights")
COLUMNS = {"flight_id": "BIGINT", "origin": "VARCHAR", "dep_delay": "BIGINT"}


def dataset(
    party: PartyId = UNITED,
    *,
    name: str = "flights",
    columns: dict[str, str] | None = None,
    unit: str | None = "flight_id",
    content: str = "0",
    at: float = 1.0,
    rules: tuple[Rule, ...] = (),
) -> Dataset:
    held = tuple(Column(*pair) for pair in (columns or COLUMNS).items())
    digest = Digest("sha256:" + content * 64)
    version = version_of(held, unit, digest, rules)
    return Dataset(party, DatasetName(name), version, digest, held, 3, 99, unit, True, rules, (), at)


def view_of(*said: Dataset | Withdrawal) -> CatalogView:
    view = CatalogView()
    for statement in said:
        if isinstance(statement, Dataset):
            view.add(statement.party, statement)
        else:
            view.withdraw(statement.party, statement)
    return view


# ── versions and statistics ─────────────────────────────────────────────────────────────────────────


def test_a_change_of_schema_unit_content_or_rules_is_another_version() -> None:
    changed = [
        dataset(),
        dataset(columns={**COLUMNS, "dep_delay": "DOUBLE"}),
        dataset(unit=None),
        dataset(content="1"),
        dataset(rules=(Rule(("origin",), "group"),)),
        dataset(rules=(Rule(("origin",), "group", units=11),)),
    ]
    assert len({one.version for one in changed}) == len(changed)
    assert dataset(at=2.0).version == dataset().version


def test_a_dataset_is_read_as_it_was_written() -> None:
    said = dataset(rules=(Rule(("origin",), "group", domain=("EWR", "JFK")),))
    assert msgspec.json.decode(msgspec.json.encode(said), type=Dataset) == said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"columns": ()}, "no columns"),
        ({"columns": (Column("a", "INT"), Column("A", "INT"))}, "two columns of one name"),
        ({"unit": "no_such"}, "a column it has not"),
        ({"rules": (Rule(("no_such",), "group"),)}, "a column it has not"),
        ({"statistics": (Statistics("no_such"),)}, "a column it has not"),
        ({"rows": -1}, "fewer than no"),
        ({"name": "a\nb"}, "printable"),
    ],
)
def test_a_dataset_that_contradicts_itself_is_refused(change: dict[str, object], message: str) -> None:
    good = dataset()
    wire = msgspec.json.encode({**msgspec.structs.asdict(good), **change})
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.json.decode(wire, type=Dataset)


ALL = Statistics("a", nulls=20, distinct=7, min="1", max="9")


@pytest.mark.parametrize(
    ("allow", "told"),
    [
        ("group", Statistics("a", nulls=20, distinct=7)),
        ("filter", Statistics("a")),
        ("aggregate", Statistics("a", nulls=20)),
        ("extremes", Statistics("a", min="1", max="9")),
        ("match", Statistics("a")),
        ("open", ALL),
    ],
)
def test_statistics_say_what_a_rule_to_all_allows(allow: Allow, told: Statistics) -> None:
    assert permitted(ALL, [Rule(("a",), allow)], rows=100, units=100) == told


def test_rules_for_some_parties_or_purposes_publish_nothing() -> None:
    narrow = [Rule(("a",), "rows", to=(DELTA,)), Rule(("a",), "extremes", purpose=("audit",))]
    assert permitted(ALL, [*narrow, Rule(("b",), "open")], rows=100, units=100) == Statistics("a")


def test_statistics_of_few_units_or_of_one_of_several_contributors_are_not_published() -> None:
    assert permitted(ALL, [Rule(("a",), "extremes", units=101)], rows=200, units=100) == Statistics("a")
    assert permitted(ALL, [Rule(("a",), "group", parties=2)], rows=100, units=100) == Statistics("a")


@pytest.mark.parametrize(("nulls", "told"), [(0, 0), (9, None), (10, 10), (90, 90), (91, None), (100, 100)])
def test_a_few_nulls_or_all_but_a_few_are_a_small_group(nulls: int, told: int | None) -> None:
    shown = permitted(Statistics("a", nulls=nulls), [Rule(("a",), "aggregate")], rows=100, units=100)
    assert shown.nulls == told


# ── the view ────────────────────────────────────────────────────────────────────────────────────────


def test_datasets_of_one_name_are_one_joint_table() -> None:
    view = view_of(dataset(UNITED), dataset(DELTA), dataset(DELTA, name="planes"))
    assert [part.party for part in view.joint(FLIGHTS)] == [DELTA, UNITED]
    assert [(d.name, d.party) for d in view.datasets] == [
        ("flights", "delta"),
        ("flights", "united"),
        ("planes", "delta"),
    ]
    assert [d.name for d in view.of(DELTA)] == ["flights", "planes"]
    assert view.get(UNITED, DatasetName("planes")) is None


def test_a_newer_version_replaces_an_older_and_a_late_one_changes_nothing() -> None:
    view = view_of(dataset(content="1", at=5.0))
    assert not view.add(UNITED, dataset(content="2", at=4.0))
    assert view.add(UNITED, dataset(content="3", at=6.0))
    assert [part.content[-1] for part in view.joint(FLIGHTS)] == ["3"]


def test_a_duplicate_changes_nothing() -> None:
    view = view_of(dataset())
    assert not view.add(UNITED, dataset())


def test_a_withdrawn_dataset_is_gone_until_it_is_published_again() -> None:
    view = view_of(dataset(at=1.0), Withdrawal(UNITED, FLIGHTS, at=2.0))
    assert view.joint(FLIGHTS) == []
    assert not view.add(UNITED, dataset(at=1.5))
    assert view.add(UNITED, dataset(at=3.0))
    assert len(view.joint(FLIGHTS)) == 1


def test_a_party_speaks_only_of_its_own_datasets() -> None:
    view = view_of(dataset())
    with pytest.raises(PeerFault, match="delta signed a statement about a dataset of united"):
        view.add(DELTA, dataset(at=9.0))
    with pytest.raises(PeerFault):
        view.withdraw(DELTA, Withdrawal(UNITED, FLIGHTS, at=9.0))
    assert view.get(UNITED, FLIGHTS) == dataset()


def test_a_version_that_is_not_the_digest_of_what_it_names_is_refused() -> None:
    view = CatalogView()
    with pytest.raises(PeerFault, match="is not the digest"):
        view.add(UNITED, msgspec.structs.replace(dataset(), unit=None))
    assert view.datasets == []


STATEMENTS: list[Dataset | Withdrawal] = [
    dataset(UNITED, content="1", at=1.0),
    dataset(UNITED, content="2", at=2.0),
    dataset(UNITED, content="3", at=2.0),
    Withdrawal(UNITED, FLIGHTS, at=2.0),
    dataset(UNITED, content="4", at=3.0),
    dataset(DELTA, content="5", at=1.0),
    Withdrawal(DELTA, FLIGHTS, at=0.5),
]


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(STATEMENTS), max_size=7), st.randoms(use_true_random=False))
def test_every_order_of_arrival_gives_the_same_view(said: list[Dataset | Withdrawal], random: Random) -> None:
    first = view_of(*said).datasets
    shuffled = [*said, *said[:2]]
    random.shuffle(shuffled)
    assert view_of(*shuffled).datasets == first


def test_of_one_instant_a_withdrawal_wins_and_then_the_greater_version() -> None:
    tied = STATEMENTS[1:3]
    for order in itertools.permutations(tied):
        assert view_of(*order).datasets == [max(tied, key=lambda said: getattr(said, "version", ""))]
    for order in itertools.permutations(STATEMENTS[1:4]):
        assert view_of(*order).datasets == []


def test_an_unknown_name_gets_the_nearest() -> None:
    view = view_of(dataset(), dataset(name="weather"), Withdrawal(DELTA, DatasetName("flight"), 1.0))
    assert len(view.find("flights")) == 1
    with pytest.raises(InvalidInput, match="no party publishes a dataset 'Flight': did you mean 'flights'"):
        view.find("Flight")
    with pytest.raises(InvalidInput, match="there are flights, weather"):
        view.find("zzz")
    with pytest.raises(InvalidInput, match="there are none"):
        CatalogView().find("zzz")


def test_names_that_resemble_come_nearest_first_whatever_their_case() -> None:
    assert nearest("DEP_DELAY", ["arr_delay", "dep_delay", "origin"]) == ("dep_delay", "arr_delay")
    assert meant("zz", [f"c{i}" for i in range(10)]) == "there are c0, c1, c2, c3, c4, c5, c6, c7 and 2 more"


# ── mismatches ──────────────────────────────────────────────────────────────────────────────────────


def test_schemas_are_compared_column_by_column() -> None:
    a = dataset(UNITED, columns={"flight_id": "BIGINT", "dep_delay": "BIGINT", "gate": "VARCHAR", "Day": "INTEGER"})
    b = dataset(
        DELTA, columns={"x": "DATE", "day": "INTEGER", "dep_delay": "VARCHAR", "flight_id": "BIGINT"}, unit=None
    )
    assert compare(a, b) == [
        "column dep_delay: BIGINT at united, VARCHAR at delta",
        "column gate: only at united",
        "column Day: only at united (delta spells it day)",
        "column x: only at delta",
        "column day: only at delta (united spells it Day)",
        "unit: flight_id at united, each row at delta",
    ]


def test_the_order_of_columns_does_not_count() -> None:
    assert compare(dataset(), dataset(DELTA, columns=dict(reversed(COLUMNS.items())))) == []
