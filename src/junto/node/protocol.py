# SPDX-License-Identifier: Apache-2.0
"""Runs one secure protocol machine over the exchange: what it sends waits in the outbox, what it needs is pulled."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar, assert_never

from junto.node.waits import first_error
from junto.secure.machine import Arrived, Done, Event, InputReady, Machine, Need, Send, Started
from junto.types import PartyId

In = TypeVar("In")
Out = TypeVar("Out")

_THREAD_BYTES = 1 << 16
"""Messages beyond this size are worked on in a thread, so that the node's loop stays free."""


async def drive(
    machine: Machine[In, Out],
    own: Callable[[], Awaitable[In]] | None,
    send: Callable[[PartyId, str, bytes], None],
    pull: Callable[[PartyId, str], Awaitable[bytes]],
) -> Out:
    """The protocol's result for this party. `own` gives its input once that is computed.

    Raises what `own` or a pull raises, and PeerFault for a message the machine refuses.
    """
    events: asyncio.Queue[Event[In]] = asyncio.Queue()

    async def bring(need: Need) -> None:
        payload = await pull(need.sender, need.name)
        events.put_nowait(Arrived(need.sender, need.name, payload))

    async def bring_own(given: Callable[[], Awaitable[In]]) -> None:
        events.put_nowait(InputReady(await given()))

    async def absorb(group: asyncio.TaskGroup) -> Out:
        events.put_nowait(Started())
        feed = False
        while True:
            event = await events.get()
            large = isinstance(event, InputReady) or (isinstance(event, Arrived) and len(event.payload) > _THREAD_BYTES)
            instructions = await asyncio.to_thread(machine.handle, event) if large else machine.handle(event)
            for instruction in instructions:
                match instruction:
                    case Send():
                        send(instruction.to, instruction.name, instruction.payload)
                    case Need():
                        group.create_task(bring(instruction))
                    case Done():
                        return instruction.output
                    case _:
                        assert_never(instruction)
            if own is not None and not feed:
                feed = True
                group.create_task(bring_own(own))

    try:
        async with asyncio.TaskGroup() as group:
            return await absorb(group)
    except BaseExceptionGroup as error:
        raise first_error(error) from error
    raise AssertionError("a task group returns or raises")
