# SPDX-License-Identifier: Apache-2.0
"""Outputs and copies on disk: whole or absent, readable by nobody else, and never believed when altered."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from junto.errors import StorageFailed
from junto.node import spool as spool_module
from junto.node.cache import Cache, cache_key
from junto.node.spool import CHUNK_BYTES, Spool, Spooled
from junto.plan.steps import Query, Read
from junto.types import DatasetName, Digest, PartyId, StepId

KEY = bytes(range(32))
BLOCK = CHUNK_BYTES + 16


def _content(size: int) -> bytes:
    return (b"0123456789abcdef" * (size // 16 + 1))[:size]


def _pieces(content: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path, KEY)


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 7])
@pytest.mark.parametrize("piece", [100_000, 5 * CHUNK_BYTES])
def test_what_is_written_is_read_however_it_was_cut(spool: Spool, size: int, piece: int) -> None:
    content = _content(size)
    spooled = spool.write(_pieces(content, piece))
    assert spooled.bytes == size
    assert b"".join(spool.read(spooled)) == content


@pytest.mark.parametrize("offset", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES + 5])
def test_reading_resumes_at_any_byte(spool: Spool, offset: int) -> None:
    content = _content(2 * CHUNK_BYTES + 5)
    spooled = spool.write([content])
    assert b"".join(spool.read(spooled, offset)) == content[offset:]


def test_what_lies_on_the_disk_is_neither_readable_nor_others_to_open(spool: Spool) -> None:
    spooled = spool.write([b"a secret figure " * 1000])
    assert b"secret" not in spooled.path.read_bytes()
    assert spooled.path.stat().st_mode & 0o077 == 0


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[CHUNK_BYTES // 2] ^= 1
    path.write_bytes(data)


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _swap(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[BLOCK : 2 * BLOCK] + data[:BLOCK] + data[2 * BLOCK :])


def _drop_a_chunk(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:BLOCK])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [_flip, _truncate, _swap, _drop_a_chunk, _empty, Path.unlink])
def test_an_altered_output_is_not_believed(spool: Spool, harm: Callable[[Path], None]) -> None:
    spooled = spool.write([_content(2 * CHUNK_BYTES + 5)])
    harm(spooled.path)
    with pytest.raises(StorageFailed, match="gone or was altered"):
        list(spool.read(spooled))


def test_an_output_put_in_the_place_of_another_is_not_believed(spool: Spool) -> None:
    one, other = spool.write([b"one figure"]), spool.write([b"2nd figure"])
    one.path.write_bytes(other.path.read_bytes())
    with pytest.raises(StorageFailed):
        list(spool.read(one))


def test_another_key_reads_nothing(spool: Spool, tmp_path: Path) -> None:
    spooled = spool.write([b"a figure"])
    with pytest.raises(StorageFailed):
        list(Spool(tmp_path, bytes(32)).read(spooled))


def test_a_full_disk_is_said_in_one_line_and_leaves_nothing(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: str, flags: int) -> int:
        os.close(os.open(path, flags, 0o600))
        return os.open("/dev/full", os.O_WRONLY)

    monkeypatch.setattr(spool_module, "_private", full)
    with pytest.raises(StorageFailed, match="no space left for outputs") as refusal:
        spool.write([_content(CHUNK_BYTES)])
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_an_arrival_that_breaks_off_leaves_nothing(spool: Spool, tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield _content(CHUNK_BYTES)
        raise ConnectionResetError

    with pytest.raises((StorageFailed, ConnectionResetError)):
        spool.write(broken())
    assert list(tmp_path.iterdir()) == []


def test_a_new_process_clears_what_the_last_one_left(spool: Spool, tmp_path: Path) -> None:
    spool.write([b"left behind"])
    Spool(tmp_path, KEY).clear()
    assert list(tmp_path.iterdir()) == []


def test_an_output_can_be_forgotten_twice(spool: Spool) -> None:
    spooled: Spooled = spool.write([b"a figure"])
    spool.remove(spooled)
    spool.remove(spooled)
    assert not spooled.path.exists()


# ── copies of open tables ───────────────────────────────────────────────────────────────────────────


def _cache(folder: Path, most_bytes: int = 1 << 20) -> Cache:
    return Cache(folder, most_bytes)


def test_a_copy_is_found_by_its_key_and_carries_its_digest(tmp_path: Path) -> None:
    cache = _cache(tmp_path)
    assert cache.get("k1") is None
    kept = cache.put("k1", [b"one", b"two"])
    assert kept.path.read_bytes() == b"onetwo"
    assert kept.sha256.hex() in kept.path.name
    assert cache.get("k1") == kept
    assert cache.get("k2") is None


def test_a_copy_is_whole_or_absent(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _cache(tmp_path).put("k1", broken())
    assert list(tmp_path.iterdir()) == []


def test_a_disk_full_of_copies_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFailed, match="no space left for copies"):
        _cache(tmp_path).put("k1", [b"table"])
    assert list(tmp_path.iterdir()) == []


def test_the_least_recently_used_copies_go_first(tmp_path: Path) -> None:
    cache = _cache(tmp_path, most_bytes=25)
    for age, key in enumerate(("old", "used", "young")):
        copy = cache.put(key, [b"x" * 8])
        os.utime(copy.path, ns=(age, age))
    assert cache.get("old") is not None  # used again just now
    cache.put("new", [b"x" * 8])
    assert [cache.get(key) is not None for key in ("old", "used", "young", "new")] == [True, False, True, True]


def test_a_copy_larger_than_the_cache_is_kept_while_it_is_the_newest(tmp_path: Path) -> None:
    cache = _cache(tmp_path, most_bytes=4)
    assert cache.put("k1", [b"x" * 8]).path.exists()
    cache.put("k2", [b"x" * 8])
    assert cache.get("k1") is None


def test_two_tasks_that_bring_one_table_at_once_do_not_mix_it(tmp_path: Path) -> None:
    cache = _cache(tmp_path)

    def brought_by_another_meanwhile() -> Iterator[bytes]:
        yield b"aaa"
        cache.put("k1", [b"bbb"])
        yield b"ccc"

    assert cache.put("k1", brought_by_another_meanwhile()).path.read_bytes() == b"aaaccc"


def test_what_an_interrupted_process_left_half_written_goes(tmp_path: Path) -> None:
    left = tmp_path / "ab.0.part"
    left.write_bytes(b"half")
    _cache(tmp_path).put("k1", [b"x"])
    assert not left.exists()


def _query(version: str = "1", sql: str = "SELECT a FROM weather", party: str = "bts") -> Query:
    read = Read("weather", DatasetName("weather"), Digest(f"sha256:{version * 64}"), columns=("a",))
    return Query(StepId("q"), PartyId(party), sql, (read,))


def test_a_key_says_owner_version_and_sql_and_nothing_else() -> None:
    key = cache_key(_query())
    assert key == cache_key(Query(StepId("another"), PartyId("bts"), _query().sql, _query().reads))
    assert len({key, cache_key(_query("2")), cache_key(_query(sql="SELECT b")), cache_key(_query(party="faa"))}) == 4


def test_a_sweep_removes_what_another_process_wrote_and_nothing_of_ours(spool: Spool, tmp_path: Path) -> None:
    earlier = Spool(tmp_path, KEY)
    kept, left = earlier.write([b"kept"]), earlier.write([b"left"])
    spool.clear({kept.path})
    assert not left.path.exists()
    ours, late = spool.write([b"ours"]), earlier.write([b"late"])  # it hung, and has woken
    spool.sweep()
    assert not late.path.exists()
    assert [b"".join(spool.read(one)) for one in (kept, ours)] == [b"kept", b"ours"]
