# SPDX-License-Identifier: Apache-2.0
"""What a task held is let go of when it ends, at once: outputs are large, and the cycle collector runs rarely."""

import gc
import time

import pyarrow as pa
from pooled import Pooled

from junto.node.work import Work

PARTIES = ("ann", "bea", "cyd")


def _held() -> int:
    return sum(isinstance(each, Work) for each in gc.get_objects())


def test_work_goes_with_its_task() -> None:
    with Pooled(PARTIES) as world:
        rows = {p: pa.table({"id": range(100 * n, 100 * n + 100), "g": ["a", "b"] * 50}) for n, p in enumerate(PARTIES)}
        world.share("visits", rows, unit="id")
        question = "SELECT g, count(*) AS n FROM visits GROUP BY g ORDER BY g"
        assert world.ask("cyd", question).table.num_rows == 2
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                world.ask("cyd", question)
            _until_nothing_is_held()
        finally:
            gc.enable()


def _until_nothing_is_held() -> None:
    until = time.monotonic() + 10
    while _held():
        assert time.monotonic() < until, f"{_held()} tasks' work is held still"
        time.sleep(0.01)
