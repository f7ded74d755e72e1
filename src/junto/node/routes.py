# SPDX-License-Identifier: Apache-2.0
"""Who may call what: one wrapper in front of every method, so that no handler has to remember to ask.

`peer.` and `link.` methods answer nodes of other parties, `user.` methods users of our own party whom the home still
lists. Whatever is not in the table is not there.
"""

from collections.abc import Awaitable, Callable, Mapping

from junto.errors import Refused
from junto.link.connection import Answer, Caller, Handler
from junto.trust.names import Name
from junto.types import PartyId

Method = Callable[[Caller, bytes], Awaitable[Answer]]


def guarded(me: PartyId, routes: Mapping[str, Method], admits: Callable[[Name], bool]) -> dict[str, Handler]:
    """The handlers of a node. Raises ValueError for a method that is neither for peers nor for users."""
    return {method: _guard(me, method, handler, admits) for method, handler in routes.items()}


def _guard(me: PartyId, method: str, handler: Method, admits: Callable[[Name], bool]) -> Handler:
    audience = method.partition(".")[0]
    if audience not in ("peer", "link", "user"):
        raise ValueError(f"{method} is for nobody: begin its name with peer., link. or user.")

    async def answer(caller: Caller, payload: bytes) -> Answer:
        name = caller.name
        if audience != "user" and not (name.node and name.party != me):
            raise Refused(f"{method} is for nodes of other parties; {name} is not one")
        if audience == "user" and not (name.user and name.party == me and admits(name)):
            raise Refused(f"{method} is for users of {me}; {name} is not one, or was removed")
        return await handler(caller, payload)

    return answer
