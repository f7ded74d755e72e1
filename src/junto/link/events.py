# SPDX-License-Identifier: Apache-2.0
"""The events that a session reports to its driver: things that happened on the link."""

from typing import TypeAlias

import msgspec

from junto.link.frames import Hello


class _Event(msgspec.Struct, frozen=True, gc=False):
    """Something that happened."""


class HelloArrived(_Event, frozen=True, gc=False):
    """The peer introduced itself and nothing about it differs: the link is open."""

    hello: Hello


class CallArrived(_Event, frozen=True, gc=False):
    """The peer asks; `reply` or `fail` it before `deadline`."""

    id: int
    method: str
    payload: bytes
    deadline: float
    trace: str


class StreamAsked(_Event, frozen=True, gc=False):
    """The peer asks for a stream; `send`, then `end` or `fail` it before `deadline`."""

    id: int
    method: str
    payload: bytes
    deadline: float
    trace: str


class NoticeArrived(_Event, frozen=True, gc=False):
    """The peer tells something."""

    method: str
    payload: bytes
    trace: str


class ReplyArrived(_Event, frozen=True, gc=False):
    """The answer to a call of ours."""

    id: int
    payload: bytes


class ErrorArrived(_Event, frozen=True, gc=False):
    """A call or stream of ours ended with the peer's error."""

    id: int
    code: str
    message: str


class StreamDataArrived(_Event, frozen=True, gc=False):
    """A piece of a stream; `grant` its bytes once they were used."""

    id: int
    payload: bytes


class StreamEnded(_Event, frozen=True, gc=False):
    """A stream of ours is complete."""

    id: int


class CreditArrived(_Event, frozen=True, gc=False):
    """A stream that the peer reads can take more."""

    id: int


class Dropped(_Event, frozen=True, gc=False):
    """The peer's call is cancelled or out of time, and the peer has been told: stop the work."""

    id: int
    expired: bool


class WaitExpired(_Event, frozen=True, gc=False):
    """A call or stream of ours passed its deadline, and the peer has been told to stop."""

    id: int


class PongArrived(_Event, frozen=True, gc=False):
    """A sign of life, and how long it took."""

    seconds: float


class PeerDrains(_Event, frozen=True, gc=False):
    """The peer will ask nothing more on this link."""


class LinkEnded(_Event, frozen=True, gc=False):
    """The link is over: send what is left, then close. `code` is one of `junto.errors`."""

    code: str
    message: str
    by_peer: bool


Event: TypeAlias = (
    HelloArrived
    | CallArrived
    | StreamAsked
    | NoticeArrived
    | ReplyArrived
    | ErrorArrived
    | StreamDataArrived
    | StreamEnded
    | CreditArrived
    | Dropped
    | WaitExpired
    | PongArrived
    | PeerDrains
    | LinkEnded
)
