# SPDX-License-Identifier: Apache-2.0
"""The journal's appends beside plain SQLite commits of the same bytes to the same disk, in one run.

`python benchmarks/bench_journal.py` prints a table; `run()` returns its rows.
"""

import asyncio
import secrets
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from junto.journal import statement
from junto.journal.statement import Statement
from junto.journal.store import Journal
from junto.types import TaskId

ALONE = 1500
IN_FLIGHT = 64
TOGETHER = 20_000
LARGE = 100_000

Said = tuple[bytes, Statement]


def run() -> list[dict[str, object]]:
    """Each figure beside its peer: {name, value, unit, peer, peer_value, ratio, aim, met}."""
    with tempfile.TemporaryDirectory(prefix="junto-bench-") as name:
        folder = Path(name)
        said = _statements(ALONE + TOGETHER)
        alone, together = said[:ALONE], said[ALONE:]
        with _journal(folder / "journal.db") as journal:
            ours_alone = asyncio.run(_one_by_one(journal, alone))
            ours_rate = TOGETHER / asyncio.run(_in_flight(journal, together))
        peer_alone = _plain_commits(folder / "plain.db", alone)
        peer_p50, p50 = statistics.median(peer_alone), statistics.median(ours_alone)
        peer_rate = ALONE / sum(peer_alone)
        _fill(folder / "large.db", said)
        opening = _seconds(lambda: _journal(folder / "large.db").__enter__().close())
    plain = "sqlite3, one commit each"
    return [
        _row("journal append, p50", p50 * 1e3, "ms", plain, peer_p50 * 1e3, p50 / peer_p50, "< 1 ms", p50 < 1e-3),
        _row(
            f"journal appends, {IN_FLIGHT} in flight", ours_rate, "1/s", plain, peer_rate, ours_rate / peer_rate,
            ">= 10000/s", ours_rate >= 10_000,
        ),
        _row(f"journal open, {LARGE} entries", opening, "s", "", None, None, "<= 1 s", opening <= 1),
    ]  # fmt: skip


def _row(
    name: str, value: float, unit: str, peer: str, peer_value: float | None, ratio: float | None, aim: str, met: bool
) -> dict[str, object]:
    return {
        "name": name, "value": value, "unit": unit, "peer": peer, "peer_value": peer_value, "ratio": ratio,
        "aim": aim, "met": met,
    }  # fmt: skip


def _statements(count: int) -> list[Said]:
    """Signed beforehand: what is measured is the journal."""
    key = Ed25519PrivateKey.generate()
    body = msgspec.Raw(
        msgspec.json.encode({"plan_digest": "sha256:" + secrets.token_hex(32), "disclosures": "x" * 200})
    )
    said = []
    for number in range(count):
        one = Statement(
            kind="offer",
            author="spiffe://air/united/node1",
            id=f"{number:026}",
            at=1.8e9,
            task=TaskId("t"),
            body=body,
        )
        said.append((statement.sign(one, key), one))
    return said


def _journal(path: Path) -> Journal:
    return Journal(path, origin="junto/air/united/node1", key=Ed25519PrivateKey.generate(), on_fatal=_stop)


def _stop(what: str) -> None:
    raise SystemExit(what)


async def _one_by_one(journal: Journal, said: list[Said]) -> list[float]:
    seconds = []
    for each in said:
        start = time.perf_counter()
        await journal.append(*each)
        seconds.append(time.perf_counter() - start)
    return seconds


async def _in_flight(journal: Journal, said: list[Said]) -> float:
    rest = iter(said)

    async def worker() -> None:
        for each in rest:
            await journal.append(*each)

    start = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    return time.perf_counter() - start


def _plain_commits(path: Path, said: list[Said]) -> list[float]:
    """SQLite alone: the same rows without hashes or indexes, each committed with the same durability."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE entry (position INTEGER PRIMARY KEY, id TEXT UNIQUE, envelope BLOB)")
    seconds = []
    for number, (envelope, one) in enumerate(said):
        start = time.perf_counter()
        connection.execute("INSERT INTO entry VALUES (?, ?, ?)", (number, one.id, envelope))
        seconds.append(time.perf_counter() - start)
    connection.close()
    return seconds


def _fill(path: Path, said: list[Said]) -> None:
    """A journal of LARGE entries; the same envelopes under ids of their own."""
    with _journal(path) as journal:
        futures = [
            journal.submit(
                said[number % len(said)][0], msgspec.structs.replace(said[number % len(said)][1], id=str(number))
            )
            for number in range(LARGE)
        ]
        futures[-1].result()


def _seconds(do: Callable[[], object]) -> float:
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    for row in run():
        value, peer_value, ratio = row["value"], row["peer_value"], row["ratio"]
        beside = f"{row['peer']} {peer_value:,.3f}, ratio {ratio:.2f}" if isinstance(ratio, float) else ""
        print(f"{row['name']:<36} {value:>12,.3f} {row['unit']:<4} {beside:<48} aim {row['aim']}: {row['met']}")


if __name__ == "__main__":
    main()
