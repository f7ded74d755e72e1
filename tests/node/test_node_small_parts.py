# SPDX-License-Identifier: Apache-2.0
"""The small parts of a node: ids, settings, who may call what, and helps for waiting."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import cast

import pytest

from junto.errors import Cancelled, InvalidInput, JuntoError, PeerFault, Refused, StorageFailed, Unavailable
from junto.link import methods
from junto.link.connection import Answer, Caller, Handler
from junto.node.ids import new_id, new_task_id
from junto.node.routes import guarded
from junto.node.settings import read_settings
from junto.node.waits import first_error, within
from junto.tasks.waiting import Patience
from junto.trust.names import Name
from junto.types import NodeId, PartyId

# ── ids ─────────────────────────────────────────────────────────────────────────────────────────────


def test_ids_sort_by_time_and_never_meet() -> None:
    times = [0.0, 0.001, 1.0, 1_700_000_000.0, 1_700_000_000.001, 1_800_000_000.0, 9_999_999_999.0]
    ids = [new_id(now) for now in times]
    assert ids == sorted(ids)
    assert len({new_id(1.0) for _ in range(1000)}) == 1000


def test_an_id_is_26_letters_and_digits_that_cannot_be_misread() -> None:
    id = new_task_id(1_700_000_000.0)
    assert len(id) == 26
    assert set(id) <= set("0123456789abcdefghjkmnpqrstvwxyz")


# ── settings ────────────────────────────────────────────────────────────────────────────────────────


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    settings = read_settings(tmp_path / "node.toml")
    assert (settings.memory_bytes, settings.threads, settings.longest_seconds) == (200_000_000, 2, 3600.0)
    assert settings.patience == Patience()


def test_sizes_and_durations_are_written_as_people_write_them(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text('memory = "1.5 GB"\noffers = "500ms"\nabsence = "2m"\nlongest = "1d"\nnetwork = "wan"\n')
    settings = read_settings(path)
    assert settings.memory_bytes == 1_500_000_000
    assert settings.patience == Patience(offer_seconds=0.5, absence_seconds=120.0)
    assert (settings.longest_seconds, settings.network) == (86400.0, "wan")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('memory = "lots"', "memory"),
        ('memory = "0MB"', "memory"),
        ('memory = "-1MB"', "memory"),
        ("memory = 300", "memory"),
        ('spill = "4 apples"', "spill"),
        ('cache = ""', "cache"),
        ("threads = 0", "threads"),
        ("threads = 1025", "threads"),
        ("threads = 1.5", "threads"),
        ("threads = true", "threads"),
        ('offers = "soon"', "offers"),
        ('offers = "0s"', "offers"),
        ('absence = "-1s"', "absence"),
        ('longest = "inf"', "longest"),
        ('network = "moon"', "network"),
        ('log = "loud"', "log"),
        ('memroy = "300MB"', "memroy"),
        ("memory = ", "at end of document"),
        ('memory = "1MB"\nmemory = "2MB"\n', "overwrite"),
        ("\x00", "node.toml"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_one_line_naming_file_and_key(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "node.toml"
    path.write_text(text)
    with pytest.raises(InvalidInput) as refusal:
        read_settings(path)
    assert str(path) in str(refusal.value)
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_settings_that_cannot_be_read_are_one_line_too(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b'log = "\xff"')
    (tmp_path / "folder.toml").mkdir()
    for name in ("latin.toml", "folder.toml"):
        with pytest.raises(InvalidInput, match=name) as refusal:
            read_settings(tmp_path / name)
        assert "\n" not in str(refusal.value)


# ── who may call what ───────────────────────────────────────────────────────────────────────────────

ME, OTHER = PartyId("bts"), PartyId("delta")
CALLERS = {
    "a node of another party": Name("sky", OTHER, node=NodeId("n1")),
    "a node of ours": Name("sky", ME, node=NodeId("n1")),
    "an operator of ours": Name("sky", ME, user="olga"),
    "a user of ours": Name("sky", ME, user="ana"),
    "a user of ours that was removed": Name("sky", ME, user="bob"),
    "a user of another party": Name("sky", OTHER, user="ana"),
}
MAY = {
    "peer": {"a node of another party"},
    "link": {"a node of another party"},
    "party": {"a node of ours"},
    "user": {"a user of ours", "an operator of ours"},
    "operator": {"an operator of ours"},
}
METHODS = sorted(value for name, value in vars(methods).items() if name.isupper() and isinstance(value, str))


class _Caller:
    def __init__(self, name: Name) -> None:
        self.name = name


async def _hello(caller: Caller, payload: bytes) -> Answer:
    return b"hello"


@pytest.mark.parametrize("who", CALLERS)
@pytest.mark.parametrize("method", METHODS)
def test_a_method_answers_those_it_is_for_and_refuses_everybody_else(method: str, who: str) -> None:
    handler = _guarded(method)[method]
    caller = cast(Caller, _Caller(CALLERS[who]))
    if who in MAY[method.partition(".")[0]]:
        assert asyncio.run(_answer(handler(caller, b""))) == b"hello"
    else:
        with pytest.raises(Refused, match=method):
            asyncio.run(_answer(handler(caller, b"")))


async def _answer(answering: Awaitable[Answer]) -> Answer:
    return await answering


def _guarded(method: str) -> dict[str, Handler]:
    return guarded(ME, {method: _hello}, lambda name: name.user in ("ana", "olga"), lambda name: name.user != "ana")


def test_where_our_disk_is_full_is_told_to_our_own_people_only() -> None:
    async def full(caller: Caller, payload: bytes) -> Answer:
        raise StorageFailed("journal /srv/delta/journal.db: no space left")

    for method, who, told in (("peer.tell", "a peer", "the disk of"), ("user.ask", "a user", "/srv/delta/journal.db")):
        name = next(name for label, name in CALLERS.items() if label in MAY[method.partition(".")[0]])
        handler = guarded(ME, {method: full}, lambda name: True, lambda name: True)[method]
        with pytest.raises(StorageFailed) as caught:
            asyncio.run(_answer(handler(cast(Caller, _Caller(name)), b"")))
        assert told in str(caught.value), who
        assert ("/srv" in str(caught.value)) == (who == "a user")


def test_a_method_for_nobody_cannot_be_offered() -> None:
    with pytest.raises(ValueError, match="for nobody"):
        _guarded("admin.reset")


def test_every_method_has_its_audience() -> None:
    assert {method.partition(".")[0] for method in METHODS} <= MAY.keys()
    assert len(METHODS) == len(set(METHODS)) > 15


# ── waiting ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_most_telling_of_several_errors_is_found() -> None:
    group = BaseExceptionGroup("", [Cancelled("c"), BaseExceptionGroup("", [ValueError("v"), PeerFault("p")])])
    assert isinstance(first_error(group), PeerFault)
    assert isinstance(first_error(BaseExceptionGroup("", [Cancelled("c"), KeyError("k")])), KeyError)
    alone = Unavailable("u")
    assert first_error(alone) is alone
    assert isinstance(first_error(ExceptionGroup("", [Cancelled("c")])), JuntoError)


def test_within_returns_when_it_happened_or_when_the_time_is_over() -> None:
    async def claim() -> None:
        event = asyncio.Event()
        await within(event.wait(), 0.001)
        event.set()
        async with asyncio.timeout(5):
            await within(event.wait(), 1000.0)

    asyncio.run(claim())
