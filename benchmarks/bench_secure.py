# SPDX-License-Identifier: Apache-2.0
"""The secure protocols: CPU seconds of each party, all parties in one process, delivery in memory.

    python benchmarks/bench_secure.py

Each figure is the median over the rounds of the busiest party's CPU time; the threshold also shows the wall time of all
parties one after the other. The peers are what one would write without the protocols' care for arrays: masks drawn by
`os.urandom`, shares of Python integers, exact fractions. Peers marked "scaled" ran on a part of the groups.
"""

import os
import secrets
import statistics
import time
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from junto.secure import maskedsum
from junto.secure.deviations import deviations
from junto.secure.encoding import decode_reals, encode_reals, unit
from junto.secure.groupkeys import GroupCounts
from junto.secure.padding import MEAN_DUMMIES
from junto.secure.shamir import P
from junto.secure.terms import Terms
from junto.secure.threshold import contribute, receive_keys
from junto.testing.secure import AnyMachine, run_machines
from junto.types import PartyId

VALUES, PARTIES = 1_000_000, 10
GROUPS, UNITS = 100_000, 10
ROUNDS = 5
PEER_GROUPS = 2_000
RECEIVER = PartyId("receiver")


def run() -> list[dict[str, object]]:
    """Each figure beside its peer: {name, value, unit, peer, peer_value, ratio, aim, met}."""
    mask_cpu, add_cpu = _masked_sum()
    threshold_cpu, threshold_wall = _threshold()
    real_cpu, real_peer = _reals()
    deviation_cpu, deviation_peer = _deviations()
    size = f"{GROUPS // 1000} k groups"
    return [
        _row(f"masked sum, 1 M values × {PARTIES}, a contributor", mask_cpu * 1e3, "ms", "os.urandom masks",
             _median(_urandom_masks) * 1e3, 25.0),
        _row(f"masked sum, 1 M values × {PARTIES}, the receiver", add_cpu * 1e3, "ms", "numpy sum of the plain vectors",
             _plain_sum() * 1e3, 25.0),
        _row(f"threshold, {size}, 3 parties, per party", threshold_cpu, "s", "Python integers, scaled",
             _python_threshold() * GROUPS / PEER_GROUPS, 1.0),
        _row(f"threshold, {size}, 3 parties, wall of all", threshold_wall, "s", "the busiest party's CPU",
             threshold_cpu, 3.0),
        _row(f"reals to lanes and back, {size}", real_cpu * 1e3, "ms", "Fraction, scaled", real_peer * 1e3, 30.0),
        _row(f"exact deviations, {size}", deviation_cpu, "s", "Fraction, scaled", deviation_peer, 0.3),
    ]  # fmt: skip


def _row(name: str, value: float, unit: str, peer: str, peer_value: float, aim: float) -> dict[str, object]:
    return {
        "name": name, "value": value, "unit": unit, "peer": peer, "peer_value": peer_value,
        "ratio": value / peer_value, "aim": f"≤ {aim:g} {unit}", "met": value <= aim,
    }  # fmt: skip


def _masked_sum() -> tuple[float, float]:
    """CPU seconds of the busiest contributor and of the receiver."""
    names = [PartyId(f"p{index}") for index in range(PARTIES)]
    vectors = {name: np.frombuffer(secrets.token_bytes(8 * VALUES), np.uint64).reshape(1, -1) for name in names}
    expected = np.sum(list(vectors.values()), axis=0, dtype=np.uint64)
    contributor, receiver = [], []
    for _ in range(ROUNDS):
        machines: dict[PartyId, AnyMachine] = {
            name: maskedsum.contribute(name, names, RECEIVER, b"bench", secrets.token_bytes) for name in names
        }
        machines[RECEIVER] = maskedsum.receive_sum(names, RECEIVER)
        result = run_machines(machines, {**vectors, RECEIVER: (1, VALUES)})
        assert np.array_equal(result.outputs[RECEIVER], expected)
        contributor.append(max(result.cpu_seconds[name] for name in names))
        receiver.append(result.cpu_seconds[RECEIVER])
    return statistics.median(contributor), statistics.median(receiver)


def _urandom_masks() -> None:
    """What a contributor does if it draws its pairs' masks from the operating system."""
    vector = np.zeros(VALUES, dtype=np.uint64)
    for _ in range(PARTIES - 1):
        vector = vector + np.frombuffer(os.urandom(8 * VALUES), dtype=np.uint64)


def _plain_sum() -> float:
    vectors = [np.frombuffer(secrets.token_bytes(8 * VALUES), np.uint64) for _ in range(PARTIES)]
    return _median(lambda: np.sum(vectors, axis=0, dtype=np.uint64))


def _threshold() -> tuple[float, float]:
    """CPU seconds of the busiest party, and wall seconds of all, one after the other."""
    a, b = PartyId("a"), PartyId("b")
    terms = Terms((a, b), RECEIVER, (a, b, RECEIVER), UNITS)
    rng = np.random.default_rng(7)  # sizes of groups, no secrets
    keys = [b"airport-%06d/2013-%02d" % (number, number % 12 + 1) for number in range(GROUPS)]
    none = np.zeros((0, GROUPS))
    inputs = {party: GroupCounts(keys, rng.integers(0, 2 * UNITS, (1, GROUPS)), none, none) for party in (a, b)}
    passes = int(np.count_nonzero(inputs[a].units[0] + inputs[b].units[0] >= UNITS))
    cpu, wall = [], []
    for _ in range(ROUNDS):
        machines: dict[PartyId, AnyMachine] = {
            party: contribute(party, terms, b"bench", secrets.token_bytes, MEAN_DUMMIES) for party in (a, b)
        }
        machines[RECEIVER] = receive_keys(terms, b"bench", secrets.token_bytes)
        began = time.perf_counter()
        result = run_machines(machines, inputs)
        wall.append(time.perf_counter() - began)
        assert result.outputs[RECEIVER].passed == passes
        cpu.append(max(result.cpu_seconds.values()))
    return statistics.median(cpu), statistics.median(wall)


def _python_threshold() -> float:
    """CPU seconds of one of three nodes that shares, multiplies and reduces one number at a time."""
    factors = [[secrets.randbelow(P) for _ in range(PEER_GROUPS)] for _ in range(UNITS + 1)]
    began = time.process_time()
    while len(factors) > 1:
        left, right = factors.pop(), factors.pop()
        shares: list[list[int]] = []
        for x, y in zip(left, right, strict=True):
            product, slope = x * y % P, secrets.randbelow(P)
            shares.append([(product + slope * point) % P for point in (1, 2, 3)])
        factors.insert(0, [(3 * one - 3 * two + three) % P for one, two, three in shares])
    return time.process_time() - began


def _reals() -> tuple[float, float]:
    values = np.random.default_rng(7).normal(0, 1e6, GROUPS)
    part = values[:PEER_GROUPS].tolist()
    scaled = _median(lambda: [float(Fraction(round(Fraction(value) * 2**64), 2**64)) for value in part])
    return _median(lambda: decode_reals(encode_reals(values)[:3])), scaled * GROUPS / PEER_GROUPS


def _deviations() -> tuple[float, float]:
    rng = np.random.default_rng(7)
    n, s = rng.integers(1, 1000, GROUPS), rng.normal(0, 1e6, GROUPS)
    ss = s * s
    one = unit("real")
    lanes = encode_reals(s)[:3], encode_reals(ss)[:3]
    rows = list(zip(n.tolist(), s.tolist(), ss.tolist(), strict=True))[:PEER_GROUPS]
    scaled = _median(lambda: [float(Fraction(c) - Fraction(b) ** 2 / a) for a, b, c in rows])
    return _median(lambda: deviations(n, *lanes, one, one)), scaled * GROUPS / PEER_GROUPS


def _median(work: Callable[[], object]) -> float:
    """CPU seconds, the median of a few runs."""
    seconds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return statistics.median(seconds)


def main() -> None:
    """Print the table."""
    for row in run():
        value, peer_value = row["value"], row["peer_value"]
        beside = f"{row['peer']} {peer_value:,.3f}, ratio {row['ratio']:.3f}"
        print(f"{row['name']:<46} {value:>8,.3f} {row['unit']:<3} {beside:<58} aim {row['aim']}: {row['met']}")


if __name__ == "__main__":
    main()
