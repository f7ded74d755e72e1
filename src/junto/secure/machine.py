# SPDX-License-Identifier: Apache-2.0
"""The seam of every secure protocol: events in, instructions out, written as the script a paper would give.

A protocol is a generator, one party's script. It yields `Send` for a message to another party, and pauses at
`take_input` and `receive`. `Machine` runs the script: it holds back what arrives early, refuses what the protocol
does not know, and turns the script's result into `Done`.

Invariants:
- every message the party will ever read is known when the machine is built (`inbox`), and asked for once, at the start;
- an event that is refused with PeerFault, InvalidInput or InvalidTransition changes nothing;
- one exception: a message that came before its shape could be known, and then turns out wrong, is refused when it is
  read. It cannot come again with other bytes, so the machine has failed; every later event is InvalidTransition.
- a message is identified by sender and name. The same bytes again are ignored; other bytes are a PeerFault.

A machine serves one attempt. If any party loses its machine, all of them must begin anew, with another `context`: a
party that drew fresh randomness while others hold messages of its first attempt would make masks fail to cancel and
shares fail to add up, and that is not always noticed.
"""

from collections.abc import Callable, Collection, Generator, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar, assert_never

from junto.errors import InvalidTransition, PeerFault
from junto.types import PartyId

T = TypeVar("T")
In = TypeVar("In")
Out = TypeVar("Out")

_END_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Started:
    """The step may begin. Always the first event."""


@dataclass(frozen=True, slots=True)
class InputReady(Generic[In]):
    """This party's own input is there. Its type is the machine's."""

    value: In = field(repr=False)


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message reached us over the authenticated link of `sender`."""

    sender: PartyId
    name: str
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Send:
    """Give this message to that party. At most one of each name per party."""

    to: PartyId
    name: str
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Need:
    """We wait, or shall wait, for that message. Said once, before the message can be there."""

    sender: PartyId
    name: str


@dataclass(frozen=True, slots=True)
class Done(Generic[Out]):
    """The protocol has ended for this party, with this result."""

    output: Out = field(repr=False)


Event = Started | InputReady[In] | Arrived
Instruction = Send | Need | Done[Out]


@dataclass(frozen=True, slots=True)
class InputPause:
    """The script waits for its input; `accept` raises InvalidInput unless the machine may use it."""

    accept: Callable[[object], None]


@dataclass(frozen=True, slots=True)
class MessagePause:
    """The script waits for one message from each sender; `accept` raises PeerFault if it is not well-formed."""

    name: str
    senders: frozenset[PartyId]
    accept: Callable[[PartyId, bytes], None]


Script = Generator[Send | InputPause | MessagePause, None, Out]
"""One party's side of a protocol."""


def take_input(kind: type[T], check: Callable[[T], None]) -> Script[T]:
    """The party's input, once it is there and `check` did not raise InvalidInput."""
    given: list[T] = []

    def accept(value: object) -> None:
        if not isinstance(value, kind):
            raise InvalidTransition(f"the input is a {type(value).__name__}; this machine takes a {kind.__name__}")
        check(value)
        given.append(value)

    yield InputPause(accept)
    return given[0]


def receive(name: str, senders: Iterable[PartyId], decode: Callable[[PartyId, bytes], T]) -> Script[dict[PartyId, T]]:
    """The result of `decode` for the message `name` of each sender. If it raises PeerFault, it has changed nothing."""
    found: dict[PartyId, T] = {}

    def accept(sender: PartyId, payload: bytes) -> None:
        found[sender] = decode(sender, payload)

    pause = MessagePause(name, frozenset(senders), accept)
    if pause.senders:
        yield pause
    return found


class Machine(Generic[In, Out]):
    """Runs one party's script of one protocol. No sockets, no clock.

    `inbox` names every message the script reads, in the order in which they should be pulled.
    """

    def __init__(self, protocol: str, script: Script[Out], inbox: Collection[tuple[PartyId, str]]) -> None:
        self._protocol = protocol
        self._script = script
        self._inbox = tuple(inbox)
        self._state = "new"  # then "running", then "done" or "failed"
        self._pause: InputPause | MessagePause | None = None
        self._missing: frozenset[PartyId] = frozenset()  # senders the pause still waits for
        self._early: dict[tuple[PartyId, str], bytes] = {}
        self._seen: dict[tuple[PartyId, str], int] = {}

    def __repr__(self) -> str:
        return f"<{self._protocol}: {self._state}, {len(self._seen)} of {len(self._inbox)} messages arrived>"

    @property
    def missing(self) -> tuple[tuple[PartyId, str], ...]:
        """The messages that have not arrived, in the order in which they were asked for."""
        return tuple(key for key in self._inbox if key not in self._seen)

    def handle(self, event: Event[In]) -> list[Instruction[Out]]:
        """Absorb one event; say what must now be done, in that order.

        Raises PeerFault for a message that the protocol does not know or that is not well-formed, InvalidInput for
        an input that it cannot use, InvalidTransition for an event that this state does not know.
        """
        if self._state == "failed" or (self._state == "new") is not isinstance(event, Started):
            raise InvalidTransition(f"{self!r} cannot take {type(event).__name__}")
        match event:
            case Started():
                self._state = "running"
                return [*(Need(sender, name) for sender, name in self._inbox), *self._advance()]
            case InputReady(value=value):
                if not isinstance(self._pause, InputPause):
                    raise InvalidTransition(f"{self!r} takes no input now; a machine takes one input, once")
                self._pause.accept(value)
                return self._advance()
            case Arrived(sender=sender, name=name, payload=payload):
                return self._arrived((sender, name), payload)
            case _:
                assert_never(event)

    def _arrived(self, key: tuple[PartyId, str], payload: bytes) -> list[Instruction[Out]]:
        sender, name = key
        # Tells a repeat from a change of mind, to name the fault: the first bytes are the ones that count. Of a long
        # message the ends suffice, because another attempt's masks or shares differ everywhere.
        mark = hash((len(payload), payload[:_END_BYTES], payload[-_END_BYTES:]))
        if key in self._seen:
            if self._seen[key] != mark:
                raise PeerFault(f"{sender} sent {name!r} of the {self._protocol} twice, with different bytes")
            return []
        if key not in self._inbox:
            raise PeerFault(f"{sender} sent {name!r}, which the {self._protocol} does not expect from it")
        pause = self._pause
        if isinstance(pause, MessagePause) and pause.name == name and sender in pause.senders:
            pause.accept(sender, payload)
            self._seen[key] = mark
            self._missing -= {sender}
            return [] if self._missing else self._advance()
        self._early[key] = payload
        self._seen[key] = mark
        return []

    def _advance(self) -> list[Instruction[Out]]:
        """Run the script up to its next pause that cannot be satisfied yet."""
        instructions: list[Instruction[Out]] = []
        self._pause = None
        try:
            while True:
                step = next(self._script)
                match step:
                    case Send():
                        instructions.append(step)
                    case InputPause():
                        self._pause = step
                        return instructions
                    case MessagePause():
                        here = {sender for sender in step.senders if (sender, step.name) in self._early}
                        for sender in sorted(here):
                            step.accept(sender, self._early.pop((sender, step.name)))
                        if here != step.senders:
                            self._pause, self._missing = step, step.senders - here
                            return instructions
                    case _:
                        assert_never(step)
        except StopIteration as stop:
            self._state = "done"
            instructions.append(Done(stop.value))
            return instructions
        except Exception:
            self._state = "failed"
            raise
