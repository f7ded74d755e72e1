# SPDX-License-Identifier: Apache-2.0
"""`junto dataset` and `junto grant` against a node that answers from a list."""

import shlex
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import pytest

import junto.cli.dataset
import junto.cli.grant
from junto.catalog.dataset import Column, Dataset, Statistics, version_of
from junto.cli import main
from junto.link import methods
from junto.trust.grants import GrantId, GrantRequest, GrantState
from junto.trust.rules import Need, Rule, judge
from junto.types import DatasetName, Digest, PartyId

NOON = 1_750_000_000.0
UNITED, DELTA, BTS = PartyId("united"), PartyId("delta"), PartyId("bts")
CONTENT = Digest("sha256:" + "0" * 64)
COLUMNS = (Column("origin", "VARCHAR"), Column("[delay]", "BIGINT"))
RULES = (
    Rule(("origin",), "group", name="rule 1"),
    Rule(("[delay]",), "aggregate", units=20, parties=2, name="rule 2"),
    Rule(("origin",), "rows", to=(BTS,), purpose=("audit",), name="rule 3"),
)


def dataset(party: PartyId, rules: tuple[Rule, ...] = RULES) -> Dataset:
    version = version_of(COLUMNS, "origin", CONTENT, rules)
    told = (Statistics("origin", nulls=0, distinct=3), Statistics("[delay]"))
    name = DatasetName("flights")
    return Dataset(party, name, version, CONTENT, COLUMNS, 336776, 99, "origin", False, rules, told, NOON)


class FakeDesk:
    """Answers from `replies` and remembers what it was asked."""

    party = UNITED

    def __init__(self) -> None:
        self.replies: dict[str, bytes] = {}
        self.asked: list[tuple[str, bytes]] = []
        self.held: list[Dataset] = []
        self.published: methods.Published | None = None
        self.connected: list[tuple[Path | None, str | None, Path | None]] = []

    def connect(self, home: Path | None = None, *, user: str | None = None, profile: Path | None = None) -> Self:
        self.connected.append((home, user, profile))
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        pass

    def datasets(self) -> list[Dataset]:
        return self.held

    def consents(self) -> dict[PartyId, tuple[PartyId, ...]]:
        return {}

    def publish(self, path: Path) -> methods.Published:
        self.asked.append(("publish", str(path).encode()))
        assert self.published is not None
        return self.published

    def request(self, method: str, body: bytes = b"") -> bytes:
        self.asked.append((method, body))
        return self.replies[method]


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> FakeDesk:
    fake = FakeDesk()
    monkeypatch.setattr(junto.cli.dataset, "connect", fake.connect)
    monkeypatch.setattr(junto.cli.grant, "connect", fake.connect)
    return fake


Output = pytest.CaptureFixture[str]


def words(line: str) -> list[str]:
    return line.replace("│", " ").replace("┃", " ").split()


# ── dataset ─────────────────────────────────────────────────────────────────────────────────────────


def write(folder: Path, text: str) -> str:
    file = folder / "flights.toml"
    file.write_text(text)
    return str(file)


GOOD = '[dataset.flights]\nsource = "f.csv"\n[[dataset.flights.rule]]\ncolumns = ["a"]\nallow = "group"\n'


def test_publishing_says_what_was_published_and_how_it_differs(desk: FakeDesk, tmp_path: Path, capsys: Output) -> None:
    new = methods.PublishedDataset(DatasetName("flights"), Digest("sha256:" + "ab" * 32), 336776, 2, 1)
    desk.published = methods.Published((new,), ("flights: column x: only at delta",))
    file = write(tmp_path, GOOD)
    assert main(["dataset", "publish", file, "--home", str(tmp_path), "--user", "ann"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "published flights: 336,776 rows, 2 columns, 1 rule, version abababababab",
        "mismatch  flights: column x: only at delta",
        "Datasets of one name are one joint table only if their columns and unit are the same.",
    ]
    assert desk.asked == [("publish", file.encode())]
    assert desk.connected == [(tmp_path, "ann", None)]


def test_publishing_as_json_is_the_nodes_reply(desk: FakeDesk, tmp_path: Path, capsys: Output) -> None:
    desk.published = methods.Published(())
    assert main(["dataset", "publish", write(tmp_path, GOOD), "--json"]) == 0
    assert msgspec.json.decode(capsys.readouterr().out) == {"published": [], "mismatches": []}


def test_a_bad_file_is_told_before_the_node_is_asked(desk: FakeDesk, tmp_path: Path, capsys: Output) -> None:
    assert main(["dataset", "publish", write(tmp_path, GOOD.replace("allow", "alow"))]) == 1
    assert (
        capsys.readouterr().err
        == "junto: flights.toml: [dataset.flights] rule 1: unknown key 'alow': did you mean 'allow'?\n"
    )
    assert desk.connected == []


def test_a_file_that_is_not_there_is_told(tmp_path: Path, capsys: Output) -> None:
    assert main(["dataset", "check", str(tmp_path / "no.toml")]) == 1
    assert capsys.readouterr().err == f"junto: {tmp_path / 'no.toml'} cannot be read: No such file or directory\n"


def test_checking_needs_no_node(tmp_path: Path, capsys: Output) -> None:
    file = write(tmp_path, GOOD)
    assert main(["dataset", "check", file]) == 1
    assert (
        capsys.readouterr().err == f"junto: flights.toml: [dataset.flights]: source {tmp_path}/f.csv does not exist\n"
    )
    (tmp_path / "f.csv").touch()
    assert main(["dataset", "check", file]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"flights: csv {tmp_path}/f.csv, each row a unit",
        "  a: as a grouping key, at least 10 units, with all owners of the name",
    ]


def test_listing_shows_every_partys_datasets(desk: FakeDesk, capsys: Output) -> None:
    desk.held = [dataset(DELTA), dataset(UNITED, ())]
    assert main(["dataset", "ls"]) == 0
    header, _, delta, united = capsys.readouterr().out.splitlines()
    assert words(header) == ["party", "name", "rows", "columns", "version", "unit", "rules", "since"]
    assert words(delta)[:4] == ["delta", "flights", "336,776", "2"]
    assert words(delta)[4] == desk.held[0].version[7:19]
    assert words(delta)[5:7] == ["origin", "3"]
    assert words(united)[0] == "united"
    assert words(united)[6] == "0"


def test_listing_may_be_of_one_party_and_json(desk: FakeDesk, capsys: Output) -> None:
    desk.held = [dataset(DELTA), dataset(UNITED)]
    assert main(["dataset", "ls", "--party", "united", "--json"]) == 0
    assert msgspec.json.decode(capsys.readouterr().out, type=list[Dataset]) == [desk.held[1]]


def test_an_empty_list_says_how_to_begin(desk: FakeDesk, capsys: Output) -> None:
    assert main(["dataset", "ls"]) == 0
    assert capsys.readouterr().out == "no datasets yet; `junto dataset publish FILE.toml` publishes one\n"


def test_showing_tells_for_each_column_what_may_leave(desk: FakeDesk, capsys: Output) -> None:
    desk.held = [dataset(DELTA), dataset(UNITED, ())]
    assert main(["dataset", "show", "flights"]) == 0
    delta, united = capsys.readouterr().out.split("\n\n")
    lines = delta.splitlines()
    assert lines[0] == "flights of delta: 336,776 rows, 99 bytes, unit origin"
    assert [cell.strip() for cell in lines[4].split("│")] == [
        *("origin", "VARCHAR", "as a grouping key, at least 10 units, with all owners of the name", "0", "3", "—", "—")
    ]
    assert "row by row, to bts, for audit" in lines[5]
    assert [cell.strip() for cell in lines[6].split("│")] == [
        *(
            "[delay]",
            "BIGINT",
            "in counts, sums and averages, at least 20 units of 2 parties, with all owners of the name",
            "—",
            "—",
            "—",
            "—",
        )
    ]
    assert united.count("nothing") == 2


def test_showing_what_does_not_exist_suggests_the_nearest(desk: FakeDesk, capsys: Output) -> None:
    desk.held = [dataset(DELTA)]
    assert main(["dataset", "show", "flight"]) == 1
    assert capsys.readouterr().err == "junto: no dataset 'flight': did you mean 'flights'?\n"


def test_unpublishing_names_the_dataset_to_the_node(desk: FakeDesk) -> None:
    desk.replies[methods.OPERATOR_WITHDRAW] = b""
    assert main(["dataset", "unpublish", "flights"]) == 0
    assert desk.asked == [(methods.OPERATOR_WITHDRAW, b'{"name":"flights"}')]


# ── grant ───────────────────────────────────────────────────────────────────────────────────────────


def asked_grant(desk: FakeDesk) -> GrantRequest:
    ((method, body),) = desk.asked
    assert method == methods.OPERATOR_GRANT
    return msgspec.json.decode(body, type=GrantRequest)


def test_the_command_of_a_refusal_gives_the_grant_it_speaks_of(desk: FakeDesk, capsys: Output) -> None:
    need = Need(UNITED, DatasetName("flights"), 'tail, "num"', "rows", "SELECT …")
    verdict = judge(need.dataset, [], [], [need], recipients=[BTS, DELTA], asker=BTS, purpose="fleet safety", now=NOON)
    (refusal,) = verdict.refusals
    desk.replies[methods.OPERATOR_GRANT] = b'{"id":"01abc"}'
    assert main(shlex.split(refusal.command)[1:]) == 0
    assert asked_grant(desk) == refusal.grant
    assert capsys.readouterr().out == (
        'grant 01abc: united lets bts and delta have tail, "num" of flights row by row'
        " for fleet safety"
        " until 2025-07-15\n"
    )


def test_a_grant_may_be_limited_in_every_way(desk: FakeDesk) -> None:
    desk.replies[methods.OPERATOR_GRANT] = b'{"id":"01abc"}'
    typed = "grant give --dataset d --columns a,b --columns c --allow aggregate --to bts --to faa,delta --units 7"
    typed += " --purpose audit --purpose 'fleet safety' --from 2026-01-01 --until 2026-02-01T12:00 --uses 3"
    assert main(shlex.split(typed)) == 0
    assert asked_grant(desk) == GrantRequest(
        to=(BTS, PartyId("faa"), DELTA),
        dataset=DatasetName("d"),
        columns=("a", "b", "c"),
        allow="aggregate",
        until=1769947200.0,
        not_before=1767225600.0,
        purpose=("audit", "fleet safety"),
        uses=3,
        units=7,
    )


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            ("rows", "row"),
            "--allow 'row' is none of group, filter, aggregate, extremes, match, rows, open: did you mean 'rows'?",
        ),
        (
            ("2026-12-31", "soon"),
            "'soon' is not a time: write 2026-12-31, 2026-12-31T18:00Z or a duration from now such as 30d",
        ),
    ],
)
def test_a_mistyped_grant_is_told_before_the_node_is_asked(
    desk: FakeDesk, capsys: Output, change: tuple[str, str], line: str
) -> None:
    typed = "grant give --dataset d --columns a --allow rows --to bts --until 2026-12-31".replace(*change)
    assert main(shlex.split(typed)) == 1
    assert capsys.readouterr().err == f"junto: {line}\n"
    assert desk.connected == []


def test_listing_grants_shows_what_became_of_them(desk: FakeDesk, capsys: Output) -> None:
    def state(
        id: str, *, used: int = 0, revoked: float | None = None, until: float = 4e9, begin: float = 0.0
    ) -> GrantState:
        request = GrantRequest((BTS,), DatasetName("d"), ("a",), "rows", until, begin, uses=2)
        return GrantState(request.grant(GrantId(id), UNITED, NOON), used, revoked)

    states = [
        state("g1"),
        state("g2", used=2),
        state("g3", revoked=86400.0),
        state("g4", until=86400.0),
        state("g5", begin=3e9),
    ]
    desk.replies[methods.OPERATOR_GRANTS] = msgspec.json.encode(states)
    assert main(["grant", "ls"]) == 0
    rows = [[cell.strip() for cell in line.split("│")] for line in capsys.readouterr().out.splitlines()[2:]]
    assert {row[0]: row[-1] for row in rows} == {
        "g5": "not begun",
        "g4": "ended",
        "g3": "revoked 1970-01-02",
        "g2": "used up",
        "g1": "in force",
    }
    assert [row[0] for row in rows] == ["g5", "g4", "g3", "g2", "g1"]
    assert rows[3][:-1] == ["g2", "bts", "d", "a", "rows", "anything", "1970-01-01", "2096-10-02T07:06:40Z", "2 of 2"]


def test_grants_as_json_are_the_nodes_reply(desk: FakeDesk, capsys: Output) -> None:
    desk.replies[methods.OPERATOR_GRANTS] = b"[]"
    assert main(["grant", "ls", "--json"]) == 0
    assert capsys.readouterr().out == "[]\n"
    assert main(["grant", "ls"]) == 0
    assert capsys.readouterr().out == "no grants given; `junto grant give` gives one\n"


def test_revoking_names_the_grant_to_the_node(desk: FakeDesk) -> None:
    desk.replies[methods.OPERATOR_REVOKE] = b""
    assert main(["grant", "revoke", "01abc"]) == 0
    assert desk.asked == [(methods.OPERATOR_REVOKE, b'{"id":"01abc"}')]


def test_a_reply_in_other_words_is_the_nodes_fault(desk: FakeDesk, capsys: Output) -> None:
    desk.replies[methods.OPERATOR_GRANTS] = b'{"grants":[]}'
    assert main(["grant", "ls"]) == 1
    assert "use the same version of junto" in capsys.readouterr().err
