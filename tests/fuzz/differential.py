# SPDX-License-Identifier: Apache-2.0
"""Compares the reviewer of fragments with DuckDB's binder over many random fragments:

    python tests/fuzz/differential.py --count 1000000 --jobs 2

Prints how many were made, accepted and bound, and each on which the two differ. Ends with 1 if any did.
"""

import argparse
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from random import Random

from fuzz_fragments import TYPES, Binder, Maker, check, reading_of

from junto.plan.counting import engine_sql

_BLOCK = 500


def block(seed: int, count: int = _BLOCK) -> tuple[Counter[str], list[str]]:
    """What became of some fragments, and those on which reviewer and binder differ."""
    maker, binder = Maker(Random(seed)), Binder()
    counts: Counter[str] = Counter()
    differing: list[str] = []
    for _ in range(count):
        made = maker.made()
        counts["made"] += 1
        reading = reading_of(made) if made is not None else None
        if made is None or reading is None:
            continue
        counts["accepted"] += 1
        texts = [""]
        if made.query.keys is not None:
            texts.append(engine_sql(made.query, TYPES))
        for text in texts:
            bound = binder.bound(text or made.sql)
            counts["bound"] += bound is not None and not text
            fault = check(made, reading, binder, text)
            if not fault and bound is not None and not binder.admitted(text or made.sql, list(reading.used)):
                fault = "the engine's own wall turns it away"
            if fault:
                differing.append(f"seed {seed}: {fault}: {text or made.sql}")
    return counts, differing


def main() -> int:
    """Run, and tell."""
    parser = argparse.ArgumentParser(description="Compare the reviewer of fragments with DuckDB's binder.")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    asked = parser.parse_args()
    seeds = range(asked.seed, asked.seed + max(1, asked.count // _BLOCK))
    counts: Counter[str] = Counter()
    differing = 0
    began = time.monotonic()
    with ProcessPoolExecutor(asked.jobs) as pool:
        for found, faults in pool.map(block, seeds):
            counts += found
            differing += len(faults)
            seconds = time.monotonic() - began
            told = f"{counts['made']:,} made, {counts['accepted']:,} accepted, {counts['bound']:,} bound"
            sys.stdout.write("".join(f"{fault}\n" for fault in faults))
            sys.stdout.write(f"{told}, {differing} differ, {seconds:.0f} s\n")
            sys.stdout.flush()
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
