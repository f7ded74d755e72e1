# SPDX-License-Identifier: Apache-2.0
"""A node's key changes with each renewal, under way, and every journal still verifies."""

import asyncio
import time
from collections.abc import Iterator

import pyarrow as pa
import pytest
from pooled import Pooled

import junto
import junto.cli
from junto.journal.reading import Reader
from junto.journal.statement import CERTIFICATE, read_statement, signer_of
from junto.journal.verify import verify_journal
from junto.node import authority
from junto.trust import charter as charters

DAY = 86_400.0
_QUESTION = "SELECT sum(x) AS s FROM t"
_RULES: list[dict[str, object]] = [{"columns": ["x"], "allow": "aggregate"}]


@pytest.fixture
def world() -> Iterator[Pooled]:
    with Pooled(["ann", "bea", "cyd"]) as consortium:
        table = pa.table({"id": list(range(40)), "x": list(range(40))})
        consortium.share("t", {"ann": table, "bea": table}, _RULES, unit="id")
        yield consortium


def _renew(world: Pooled, party: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Renew as at half the certificate's life, with a new one that is valid now."""
    node = world.node(party)
    monkeypatch.setattr(type(node.identity), "is_due", lambda identity, now: identity is not None)
    world.on_loop(node.renew(time.time()))
    monkeypatch.undo()


def test_questions_go_on_over_a_change_of_keys_and_journals_verify(
    world: Pooled, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {party: world.node(party).identity.key_id for party in world.parties}
    assert world.ask("cyd", _QUESTION).table.num_rows == 1
    for party in ("cyd", "ann", "bea"):  # the asker and both owners, one after the other
        _renew(world, party, monkeypatch)
        assert world.node(party).identity.key_id != before[party]
        assert world.ask("cyd", _QUESTION).table.num_rows == 1
    for party in world.parties:
        path = world.home(party).journal_path
        with Reader(path) as reader:
            own = [e for e in reader.entries() if f"/{party}/" in e.author and e.kind != CERTIFICATE]
        signers = {signer_of(entry.envelope) for entry in own}
        assert {before[party], world.node(party).identity.key_id} <= signers
        report = verify_journal(path)
        assert report.problems == (), report.problems
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("JUNTO_HOME", str(world.home("cyd").path))
        assert junto.cli.main(["journal", "verify", str(world.home("cyd").journal_path)]) == 0


def test_a_renewal_under_way_does_not_disturb_questions_in_flight(
    world: Pooled, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = [world["cyd"].sql(_QUESTION).submit(deadline="30s") for _ in range(6)]
    for party in world.parties:
        _renew(world, party, monkeypatch)
    questions += [world["cyd"].sql(_QUESTION).submit(deadline="30s") for _ in range(6)]
    assert [world["cyd"].wait(task).table.num_rows for task in questions] == [1] * 12


def test_a_peer_that_knows_nothing_learns_the_keys_of_old_datasets_and_new_statements(
    world: Pooled, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = world.node("ann").identity.key_id
    _renew(world, "ann", monkeypatch)
    _renew(world, "ann", monkeypatch)  # a key that signed no dataset lies between
    envelopes = world.on_loop(_facts(world))
    assert signer_of(envelopes[0]) == old  # the certificate by which the dataset is checked
    assert signer_of(envelopes[1]) == world.node("ann").identity.key_id
    assert signer_of(envelopes[2]) == old
    kinds = [read_statement(envelope).kind for envelope in envelopes]
    assert kinds.count(CERTIFICATE) == 2


async def _facts(world: Pooled) -> list[bytes]:
    await asyncio.sleep(0)
    return list(world.node("ann").facts.own_envelopes())


def test_a_node_without_its_authority_says_so_and_takes_an_issued_certificate_into_use(
    world: Pooled, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, node = world.home("ann"), world.node("ann")
    before = node.identity
    kept = authority.move(home, home.path.parent / "ann-authority")
    assert not world["ann"].status().certificate_renews
    world.on_loop(node.renew(time.time() + 0.7 * DAY))
    assert node.identity.key_id == before.key_id
    told = [notice.text for notice in node.notices._kept if notice.kind == "certificate"]
    assert len(told) == 1
    assert "was not renewed" in told[0]
    assert "junto party request" in told[0]
    issued = authority.issue(kept, authority.request(home), time.time(), 30 * DAY)[1]
    authority.take(home, issued, time.time())
    world.on_loop(node.renew(time.time()))
    assert node.identity.key_id != before.key_id
    assert world.ask("ann", _QUESTION).table.num_rows == 1
    assert verify_journal(home.journal_path).problems == ()


def test_a_partys_own_commands_work_while_its_node_goes_by_the_charter_before(world: Pooled) -> None:
    current = world.home("ann").signed_charter().charter
    newer = charters.create(current.members, current.consortium, time.time(), version=current.version + 1)
    for party in world.parties:
        newer = charters.sign(newer, world.home(party).authority())
    world.home("ann").save_charter(newer)
    with junto.connect(world.home("ann").path, user="analyst") as desk:
        status = desk.status()
        assert (status.charter_version, status.charter_waiting) == (current.version, current.version + 1)
        assert desk.sql(_QUESTION).run().table.num_rows == 1
    assert world["bea"].status().charter_waiting == 0
