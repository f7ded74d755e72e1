# SPDX-License-Identifier: Apache-2.0
"""The right to call each method: one wrapper in front of every method, so that no handler has to remember to ask.

`peer.` and `link.` methods answer nodes of other parties, `party.` methods other nodes of our own, `user.` methods
users of our own party whom the home still lists, `operator.` methods those users who may publish and grant in its name.
Whatever is not in the table is not there.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import msgspec

from junto.errors import InvalidInput, Refused, StorageFailed
from junto.link import methods
from junto.link.connection import Answer, Caller, Handler
from junto.logs import logger
from junto.trust.names import Name
from junto.types import PartyId

_log = logger("junto.routes")

_AT_ONCE = frozenset((methods.PEER_SEEN, methods.PEER_SAID))

T = TypeVar("T")
Method = Callable[[Caller, bytes], Awaitable[Answer]]


Admits = Callable[[Name], bool]


def decoded(payload: bytes, shape: type[T]) -> T:
    """A user's request. Raises InvalidInput."""
    try:
        return msgspec.json.decode(payload, type=shape)
    except msgspec.MsgspecError as error:
        raise InvalidInput(f"the request is no {shape.__name__}: {error}") from None


def guarded(
    me: PartyId, routes: Mapping[str, Method], admits: Admits, operates: Admits, serving: asyncio.Event | None = None
) -> dict[str, Handler]:
    """The handlers of a node. Raises ValueError for a method that is neither for peers nor for users.

    admits: whether a name is a user of ours now. operates: whether it is one who may act for the party. serving: set
    once the node knows its own past; until then only what others ask of theirs is answered, and the rest waits.
    """
    return {
        method: _guard(me, method, handler if serving is None else _waiting(method, handler, serving), admits, operates)
        for method, handler in routes.items()
    }


def _waiting(method: str, handler: Method, serving: asyncio.Event) -> Method:
    if method in _AT_ONCE:
        return handler

    async def answer(caller: Caller, payload: bytes) -> Answer:
        if not serving.is_set():
            await serving.wait()
        return await handler(caller, payload)

    return answer


def _guard(me: PartyId, method: str, handler: Method, admits: Admits, operates: Admits) -> Handler:
    audience = method.partition(".")[0]
    if audience not in ("peer", "link", "party", "user", "operator"):
        raise ValueError(f"{method} is for nobody: begin its name with peer., link., party., user. or operator.")

    async def answer(caller: Caller, payload: bytes) -> Answer:
        name = caller.name
        if audience in ("peer", "link") and not (name.node and name.party != me):
            raise Refused(f"{method} is for nodes of other parties; {name} is not one")
        if audience == "party" and not (name.node and name.party == me):
            raise Refused(f"{method} is for other nodes of {me}; {name} is not one")
        if audience in ("user", "operator") and not (name.user and name.party == me and admits(name)):
            raise Refused(f"{method} is for users of {me}; {name} is not one, or was removed")
        if audience == "operator" and not operates(name):
            raise Refused(f"{method} is for operators of {me}: `junto user change {name.user} --operator` makes one")
        try:
            return await handler(caller, payload)
        except StorageFailed as error:
            if audience not in ("peer", "link"):
                raise
            # Our own people are told where; another party only that we have no room.
            _log.error("nothing could be stored for a peer", party=name.party, method=method, reason=str(error))
            raise error.told_by(me) from None

    return answer
