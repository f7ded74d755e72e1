# SPDX-License-Identifier: Apache-2.0
"""Fragments in children of the node pass what every engine must, and end with their child alone."""

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from junto.children.pool import Pool
from junto.engines.base import Engine, Limits
from junto.engines.supervised import Supervised
from junto.errors import Cancelled, Crashed, FragmentFailed, OutOfMemory
from junto.testing.engines import CLAIMS, ONE, Claim, answer
from junto.testing.until import until


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool("fragments", "junto.engines.child")
    yield pool
    pool.close()
    assert pool.shown() == ()


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.__name__)
def test_fragments_in_children_conform(pool: Pool, tmp_path: Path, claim: Claim) -> None:
    claim(Supervised(pool), tmp_path)
    pool.close()
    assert not list(tmp_path.glob("temp/*"))


def _bomb(subqueries: int) -> str:
    """Correlated subqueries: DuckDB plans them for minutes, and looks at no interrupt meanwhile."""
    terms = " + ".join(f"(SELECT max(b{n}.x) FROM t AS b{n} WHERE b{n}.x = a.x + {n})" for n in range(subqueries))
    return f"SELECT {terms} AS x FROM t AS a"


def _ended(engine: Engine, folder: Path, sql: str, stop: threading.Event, seconds: float = 30.0) -> BaseException:
    """What a run ends with, in a thread of its own. Raises TimeoutError if it does not end."""

    def run() -> None:
        with engine.run(sql, ONE, Limits(256 << 20, 2, folder / "temp"), stop) as rows:
            rows.table()

    ends: Future[None] = Future()

    def into() -> None:
        try:
            run()
            ends.set_result(None)
        except BaseException as error:  # noqa: BLE001  # that is what is asked for
            ends.set_exception(error)

    threading.Thread(target=into, daemon=True).start()
    error = ends.exception(seconds)
    assert error is not None, "the run ended well"
    return error


def test_a_stop_ends_a_query_that_is_being_planned(pool: Pool, tmp_path: Path) -> None:
    stop = threading.Event()
    timer = threading.Timer(1.0, stop.set)
    timer.start()
    assert isinstance(_ended(Supervised(pool), tmp_path, _bomb(400), stop), Cancelled)
    assert pool.shown() == ()
    assert answer(Supervised(pool), tmp_path, "SELECT count(*) AS n FROM t", ONE).to_pylist() == [{"n": 3}]


def test_a_crash_costs_one_fragment(pool: Pool, tmp_path: Path) -> None:
    engine = Supervised(pool)

    def crash() -> None:
        os.kill(until(pool.shown, "a child works")[0].pid, signal.SIGSEGV)

    threading.Thread(target=crash).start()
    error = _ended(engine, tmp_path, _bomb(400), threading.Event())
    assert isinstance(error, Crashed)
    assert "SIGSEGV" in str(error)
    assert answer(engine, tmp_path, "SELECT count(*) AS n FROM t", ONE).to_pylist() == [{"n": 3}]


def test_memory_that_the_engine_does_not_count_has_a_limit_too(pool: Pool, tmp_path: Path) -> None:
    hog = "SELECT length(repeat(repeat('x', 1000000), 3000)) AS n"
    error = _ended(Supervised(pool), tmp_path, hog, threading.Event())
    assert isinstance(error, OutOfMemory | Crashed)


def test_processor_time_has_a_limit(pool: Pool, tmp_path: Path) -> None:
    endless = "SELECT sum(sqrt(a.range * b.range)) AS s FROM range(100000000) a, range(100000) b"
    limits = Limits(256 << 20, 2, tmp_path / "temp", cpu_seconds=1)
    with (
        pytest.raises(FragmentFailed, match="processor's time"),
        Supervised(pool).run(endless, ONE, limits, threading.Event()) as rows,
    ):
        rows.table()


def test_what_a_killed_child_has_spilled_goes_with_it(pool: Pool, tmp_path: Path) -> None:
    spilling = "SELECT count(*) FROM (SELECT DISTINCT hash(range), hash(range + 1) FROM range(100000000))"
    stop = threading.Event()
    folder = tmp_path / "temp"

    def when_it_spills() -> None:
        until(lambda: any(path.is_file() for path in folder.rglob("*")), "it spills")
        stop.set()

    threading.Thread(target=when_it_spills).start()
    with (
        pytest.raises(Cancelled),
        Supervised(pool).run(spilling, ONE, Limits(48 << 20, 2, folder), stop) as rows,
    ):
        rows.table()
    assert not list(folder.iterdir())
