# SPDX-License-Identifier: Apache-2.0
"""Runs the machines of all parties of a secure protocol in one process, in any order, and writes down what each got.

Parties may deviate: what they send is then rewritten, and the faults that others find are written down too.
"""

import random
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

from junto.errors import InvalidTransition, PeerFault
from junto.secure.keystream import Keystream, derive
from junto.secure.machine import Arrived, Done, InputReady, Instruction, Machine, Need, Send, Started
from junto.types import PartyId, RandomBytes

AnyMachine = Machine[Any, Any]
"""Parties of one protocol have different inputs and outputs; the test that built them knows which."""


@dataclass(frozen=True, slots=True)
class Received:
    """A line of the transcript: who got which message from whom."""

    to: PartyId
    sender: PartyId
    name: str
    payload: bytes = field(repr=False)


@dataclass(slots=True)
class Run:
    """The outcome of a run: each party's output or fault, and every message in the order of delivery."""

    outputs: dict[PartyId, Any] = field(default_factory=dict)
    faults: dict[PartyId, PeerFault] = field(default_factory=dict)
    transcript: list[Received] = field(default_factory=list)
    needs: set[tuple[PartyId, PartyId, str]] = field(default_factory=set)  # (who needs, from whom, what)
    cpu_seconds: defaultdict[PartyId, float] = field(
        default_factory=lambda: defaultdict(float)
    )  # spent in each party's machine

    def received_by(self, party: PartyId) -> list[tuple[PartyId, str, int]]:
        """(sender, name, bytes) of each message the party got, sorted."""
        return sorted((line.sender, line.name, len(line.payload)) for line in self.transcript if line.to == party)

    def payloads(self, party: PartyId) -> bytes:
        """All bytes the party got, one after the other."""
        return b"".join(line.payload for line in self.transcript if line.to == party)


def seeded(seed: str) -> RandomBytes:
    """Bytes as good as random, and the same in every run with that seed."""
    return Keystream(derive(seed.encode(), "testing", b"", size=16)).take


def run_machines(
    machines: Mapping[PartyId, AnyMachine],
    inputs: Mapping[PartyId, object],
    seed: int = 0,
    deviate: Callable[[PartyId, Send], Send | None] | None = None,
) -> Run:
    """Start all machines, give each its input, and deliver every message, in an order drawn from `seed`.

    Each party starts before anything else reaches it; for the rest any order may come. Raises AssertionError if a
    machine needs a message that nobody sent, or was sent one it does not need, or does not end.
    deviate: what each party sends instead of what its machine says; None: nothing. Machines may then fail, or wait.
    """
    order = random.Random(seed)  # noqa: S311  (an order to repeat, not a secret)
    run = Run()
    pending: list[tuple[PartyId, Started | InputReady[object] | Arrived]] = [(party, Started()) for party in machines]
    waiting: dict[PartyId, list[Arrived]] = {party: [] for party in machines}  # for parties that have not started
    started: set[PartyId] = set()
    sent: set[tuple[PartyId, PartyId, str]] = set()
    while pending:
        party, event = pending.pop(order.randrange(len(pending)))
        match event:
            case Started():
                started.add(party)
                if party in inputs:
                    pending.append((party, InputReady(inputs[party])))
                pending += [(party, early) for early in waiting[party]]
            case Arrived() if party not in started:
                waiting[party].append(event)
                continue
            case Arrived(sender=sender, name=name, payload=payload):
                run.transcript.append(Received(party, sender, name, payload))
            case InputReady():
                pass
            case _:
                assert_never(event)
        began = time.process_time()
        try:
            instructions = machines[party].handle(event)
        except PeerFault as fault:
            if deviate is None:
                raise
            run.faults.setdefault(party, fault)
            continue
        except InvalidTransition:
            if party not in run.faults:
                raise
            continue
        run.cpu_seconds[party] += time.process_time() - began
        for instruction in instructions:
            if deviate is not None and isinstance(instruction, Send):
                rewritten = deviate(party, instruction)
                if rewritten is not None:
                    _perform(rewritten, party, run, sent, pending)
                continue
            _perform(instruction, party, run, sent, pending)
    if deviate is not None:
        return run
    _require(run.needs == sent, f"needed and sent differ: {sorted(run.needs ^ sent)}")
    _require(run.outputs.keys() == machines.keys(), f"only {sorted(run.outputs)} of {sorted(machines)} ended")
    return run


def _perform(
    instruction: Instruction[object],
    party: PartyId,
    run: Run,
    sent: set[tuple[PartyId, PartyId, str]],
    pending: list[tuple[PartyId, Started | InputReady[object] | Arrived]],
) -> None:
    match instruction:
        case Send(to=to, name=name, payload=payload):
            _require((to, party, name) not in sent, f"{party} sent {name!r} to {to} twice")
            _require(party not in run.outputs, f"{party} sent {name!r} after it was done")
            sent.add((to, party, name))
            pending.append((to, Arrived(party, name, payload)))
        case Need(sender=sender, name=name):
            _require((party, sender, name) not in run.needs, f"{party} asked {sender} for {name!r} twice")
            run.needs.add((party, sender, name))
        case Done(output=output):
            run.outputs[party] = output
        case _:
            assert_never(instruction)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)
