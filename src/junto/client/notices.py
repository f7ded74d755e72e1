# SPDX-License-Identifier: Apache-2.0
"""Follows a node's notices across lost links and restarts, telling each once."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from junto.client.reply import decoded
from junto.errors import Unavailable
from junto.link import methods
from junto.types import TaskId

_STREAM_SECONDS = 3600.0  # then the stream is asked for anew; nobody notices
_OVERLAP_SECONDS = 30.0  # asked for again after a break: a restarted node may date what it derives a little earlier
_REMEMBERED = 4000
_PAUSES_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0)

Stream = Callable[[methods.Follow, float], Iterator[bytes]]
"""Asks the node for notices; the pieces of its answer, for so many seconds at most."""

Lost = Callable[[str], None]
"""A callback that hears why the node cannot be reached, once per break."""


def followed(
    stream: Stream,
    *,
    tasks: Sequence[TaskId] = (),
    kinds: Sequence[str] = (),
    past_seconds: float = 0.0,
    lost: Lost | None = None,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[methods.Notice]:
    """Notices as they are raised, without end; each once, those raised while the node could not be reached too.

    Raises what the node refuses, such as InvalidInput for an unknown kind; a node that is away is waited for.
    """
    seen: deque[str] = deque(maxlen=_REMEMBERED)
    since = begun = clock() - past_seconds
    overlap, broken = 0.0, 0
    while True:
        now = clock()
        past = min(now - since + overlap, now - begun)
        try:
            for piece in stream(methods.Follow(past, tuple(tasks), tuple(kinds)), _STREAM_SECONDS):
                notice = decoded(piece, methods.Notice)
                broken, since = 0, clock()
                if notice.id not in seen:
                    seen.append(notice.id)
                    yield notice
            raise Unavailable("the node has ended the stream")
        except Unavailable as error:
            if broken == 1 and lost is not None:  # the first time it may be but the link, or the stream's own end
                lost(str(error))
            pause(_PAUSES_SECONDS[min(broken, len(_PAUSES_SECONDS) - 1)])
            broken += 1
        overlap = _OVERLAP_SECONDS
