# SPDX-License-Identifier: Apache-2.0
"""What rules and grants permit is answered, everything else is refused by name, and the printed mend mends."""

import time
from collections.abc import Iterator

import msgspec
import pyarrow as pa
import pytest
from pooled import Pooled, command_in

import junto.cli
from junto.errors import InvalidInput, PeerFault, Refused
from junto.link import methods
from junto.trust.grants import GrantState

_TABLE = pa.table({"id": list(range(30)), "tail": [f"N{i}" for i in range(30)], "delay": list(range(30))})
_ROWS = "SELECT tail, delay FROM flights WHERE id < 3 ORDER BY tail, delay"


@pytest.fixture(scope="module")
def world() -> Iterator[Pooled]:
    with Pooled(["ann", "bea", "cyd"]) as consortium:
        rules: list[dict[str, object]] = [
            {"columns": ["id"], "allow": "filter"},
            {"columns": ["delay"], "allow": "aggregate", "units": 12},
        ]
        consortium.share("flights", {"ann": _TABLE, "bea": _TABLE}, rules, unit="id")
        yield consortium


def _typed(world: Pooled, party: str, *words: str) -> None:
    assert junto.cli.run([*words, "--home", str(world.home(party).path)]) == 0


def _grants(world: Pooled, party: str) -> list[GrantState]:
    return msgspec.json.decode(world[party].request(methods.OPERATOR_GRANTS), type=list[GrantState])


def _revoke_all(world: Pooled) -> None:
    for party in ("ann", "bea"):
        for state in _grants(world, party):
            if state.revoked_at is None:
                world[party].request(methods.OPERATOR_REVOKE, msgspec.json.encode(methods.Revoke(state.grant.id)))


def _refusal(world: Pooled, question: str, asker: str = "cyd", purpose: str = "") -> str:
    with pytest.raises(Refused) as caught:
        world.ask(asker, question, purpose=purpose)
    return str(caught.value)


def test_a_refusal_names_column_rule_and_a_command_that_mends_it(world: Pooled) -> None:
    message = _refusal(world, _ROWS)
    for party in ("ann", "bea"):
        assert f"{party} refuses cyd: tail of flights row by row" in message
        assert "for cyd: no rule speaks of it" in message
        assert "rule 2 allows only aggregate" in message
        for command in command_in(message, party):
            _typed(world, party, *command)
    assert world.ask("cyd", _ROWS).table.num_rows == 6
    assert all(state.used == 1 for party in ("ann", "bea") for state in _grants(world, party))
    _revoke_all(world)
    assert "ann refuses cyd" in _refusal(world, _ROWS)


def test_a_refusal_by_one_owner_is_that_owners_alone(world: Pooled) -> None:
    for command in command_in(_refusal(world, _ROWS), "ann"):
        _typed(world, "ann", *command)
    message = _refusal(world, _ROWS)
    assert "bea refuses cyd" in message
    assert "ann refuses" not in message
    used = [state.used for state in _grants(world, "ann") if state.revoked_at is None]
    assert used == [0]  # judged and permitted, but nothing was contracted
    _revoke_all(world)


def test_a_grant_is_used_up_and_says_so(world: Pooled) -> None:
    for party in ("ann", "bea"):
        words = ("--dataset", "flights", "--columns", "tail,delay", "--allow", "rows", "--to", "cyd", "--until", "1d")
        _typed(world, party, "grant", "give", *words, "--uses", "2")
    for _ in range(2):
        world.ask("cyd", _ROWS)
    assert "is used up" in _refusal(world, _ROWS)
    _revoke_all(world)


def test_a_grant_ends_and_says_so(world: Pooled, monkeypatch: pytest.MonkeyPatch) -> None:
    for party in ("ann", "bea"):
        words = ("--dataset", "flights", "--columns", "tail,delay", "--allow", "rows", "--to", "cyd", "--until", "1d")
        _typed(world, party, "grant", "give", *words)
    world.ask("cyd", _ROWS)
    for party in ("ann", "bea"):
        monkeypatch.setattr(world.node(party).judgement, "_unix_time", lambda: time.time() + 2 * 86_400)
    assert "has ended" in _refusal(world, _ROWS)
    monkeypatch.undo()
    _revoke_all(world)


def test_a_grant_to_one_party_is_none_to_another(world: Pooled) -> None:
    words = ("--dataset", "flights", "--columns", "tail,delay", "--allow", "rows", "--to", "cyd", "--until", "1d")
    _typed(world, "bea", "grant", "give", *words)
    assert "bea refuses ann" in _refusal(world, _ROWS, asker="ann")
    _revoke_all(world)


def test_a_rule_for_a_purpose_holds_for_it_and_for_no_other(world: Pooled) -> None:
    rules: list[dict[str, object]] = [{"columns": ["delay"], "allow": "aggregate", "purpose": ["fleet safety"]}]
    world.share("safety", {"ann": _TABLE, "bea": _TABLE}, rules, unit="id")
    question = "SELECT SUM(delay) AS s FROM safety"
    assert world.ask("cyd", question, purpose="fleet safety").table.to_pylist() == [{"s": 870}]
    message = _refusal(world, question)
    assert "rule 1 allows it only for fleet safety (asked for no purpose)" in message
    other = _refusal(world, question, purpose="marketing")
    assert "asked for marketing" in other
    assert "--purpose marketing" in other
    for party in ("ann", "bea"):
        for command in command_in(other, party):
            _typed(world, party, *command)
    assert world.ask("cyd", question, purpose="marketing").table.num_rows == 1
    _refusal(world, question)
    with pytest.raises(InvalidInput, match="purpose"):
        world.ask("cyd", question, purpose="no\nsuch")
    _revoke_all(world)


def test_rows_for_a_named_recipient_are_for_nobody_else(world: Pooled) -> None:
    rules: list[dict[str, object]] = [{"columns": ["*"], "allow": "rows", "to": ["cyd"]}]
    world.share("handed", {"ann": _TABLE}, rules, unit="id")
    assert world.ask("cyd", "SELECT tail FROM handed ORDER BY id LIMIT 1").table.to_pylist() == [{"tail": "N0"}]
    assert "rule 1 allows it only to cyd" in _refusal(world, "SELECT tail FROM handed", asker="bea")


def test_the_strictest_threshold_of_the_rules_used_holds(world: Pooled) -> None:
    answer = world.ask("bea", "SELECT SUM(delay) AS s, COUNT(*) AS n FROM flights WHERE id < 11")
    assert (answer.table.num_rows, answer.receipt.withheld) == (
        0,
        "unknown",
    )  # eleven units of ann, and her rule asks for twelve
    assert world.ask("bea", "SELECT SUM(delay) AS s FROM flights WHERE id < 12").table.num_rows == 1


def test_users_are_users_until_they_are_removed(world: Pooled) -> None:
    home = world.home("cyd")
    home.add_user("guest", time.time())
    with junto.connect(home.path, user="guest") as guest:
        assert guest.sql("SELECT SUM(delay) FROM flights").run().table.num_rows == 1
        with pytest.raises(Refused, match=r"operators of cyd: `junto user change guest --operator`"):
            guest.publish(home.path / "none.toml")
        task = world.ask("cyd", "SELECT SUM(delay) FROM flights").task
        for look in (guest.result, guest.task, guest.ended, guest.cancel):
            with pytest.raises(Refused, match=f"task {task} is of analyst@cyd"):
                look(task)
        home.remove_user("guest")
        with pytest.raises(Refused, match="was removed"):
            guest.datasets()
    home.add_user("guest", time.time())
    stale = home.profile("guest")
    home.add_user("guest", time.time())
    (home.path / "stale.json").write_bytes(msgspec.json.encode(stale))
    (home.path / "stale.json").chmod(0o600)
    with pytest.raises(PeerFault, match="not a user of cyd, or was removed"):
        junto.connect(profile=home.path / "stale.json")


def test_a_user_of_another_party_has_no_business_here(world: Pooled) -> None:
    profile = world.home("ann").profile("analyst")
    foreign = msgspec.structs.replace(profile, addresses=world.home("bea").profile("analyst").addresses)
    (world.home("ann").path / "foreign.json").write_bytes(msgspec.json.encode(foreign))
    (world.home("ann").path / "foreign.json").chmod(0o600)
    with pytest.raises(Refused, match="answers as bea/node, not ann"):
        junto.connect(profile=world.home("ann").path / "foreign.json")
