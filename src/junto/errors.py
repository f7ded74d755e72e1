# SPDX-License-Identifier: Apache-2.0
"""Every error Junto raises.

JuntoError
├─ InvalidInput (ValueError)    the caller's mistake
│  ├─ UnsupportedSQL            a clause Junto does not answer; says what to write instead
│  └─ DataChanged               a source is no longer what its owner published
├─ Refused                      policy said no; names the rule and the grant that would allow it
│  └─ OverQuota                 a party has put in as much as the node takes of one
├─ PeerFault                    another party broke the protocol
│  └─ Deviation                 parties that computed the same step differ
├─ Unavailable                  a party cannot be reached now; `retry_after_seconds`
│  ├─ HelperAway                a party that was to compute for others cannot be reached from here
│  ├─ Crashed                   the process that did the work has ended under it
│  ├─ Busy                      it has no room for more work now; names what is missing
│  └─ DeadlineExceeded          a wait passed its limit; names who was waited for
├─ Cancelled                    somebody asked for the work to stop
├─ FragmentFailed               an engine could not run its fragment
│  ├─ OutOfMemory               it needed more than the node may use
│  └─ NoSpill                   there is no room on disk for what does not fit in memory
├─ StorageFailed                disk full, or a failed fsync
│  └─ Fenced                    another node of the party leads by now
└─ InvalidTransition            our bug; carries the story

A peer receives `code` and a one-line message that holds ids, shapes and counts, never a value of the data.
"""

import errno
from typing import ClassVar, Literal


class JuntoError(Exception):
    """The root of the tree. `code` is what crosses to a peer."""

    code: ClassVar[str] = "internal"


class InvalidInput(JuntoError, ValueError):
    """The caller's mistake: what, where, the mend."""

    code = "invalid-input"


class UnsupportedSQL(InvalidInput):
    """A clause Junto does not answer; the message says what to write instead."""

    code = "unsupported-sql"


class DataChanged(InvalidInput):
    """A source is no longer what its owner published."""

    code = "data-changed"


class Refused(JuntoError):
    """Policy said no; the message names column, rule and the grant that would allow it."""

    code = "refused"


class OverQuota(Refused):
    """A party has put as many statements, bytes or tasks into a node as it takes of one party."""

    code = "over-quota"


class PeerFault(JuntoError):
    """Another party broke the protocol."""

    code = "peer-fault"


class Deviation(PeerFault):
    """Parties that computed the same step differ, and what is used is not what most of them computed."""

    code = "deviation"


class Unavailable(JuntoError):
    """A party cannot be reached now."""

    code = "unavailable"

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Busy(Unavailable):
    """A node has no room for more work now; the message names what is missing, and who has it."""

    code = "busy"


class HelperAway(Unavailable):
    """The party that was to compute with us, and has no data in it, cannot be reached: another one may do it."""

    code = "helper-away"


class Crashed(Unavailable):
    """The process that did the work ended under it; trying again may go well."""

    code = "crashed"


class DeadlineExceeded(Unavailable):
    """A wait passed its limit; the message names who was waited for and since when."""

    code = "deadline-exceeded"


class Cancelled(JuntoError):
    """Somebody asked for the work to stop."""

    code = "cancelled"


class FragmentFailed(JuntoError):
    """An engine could not run its fragment. The message never quotes the engine's, which may hold values."""

    code = "fragment-failed"


class OutOfMemory(FragmentFailed):
    """The fragment needed more memory than the node may use."""

    code = "out-of-memory"


class NoSpill(FragmentFailed):
    """The engine found no room on disk for rows that memory cannot hold; trying again may go well."""

    code = "no-spill"


Lack = Literal["is full", "is over its quota", "takes no larger file", "takes no more open files", "is full or failing"]
"""A disk's trouble, as other parties may hear of it: it says nothing of paths or of data."""

_LACKS: dict[int | None, Lack] = {
    errno.ENOSPC: "is full",
    errno.EDQUOT: "is over its quota",
    errno.EFBIG: "takes no larger file",
    errno.EMFILE: "takes no more open files",
    errno.ENFILE: "takes no more open files",
}


def lack_of(error: OSError) -> Lack:
    """The trouble that an error of the system stands for."""
    return _LACKS.get(error.errno, "is full or failing")


class StorageFailed(JuntoError):
    """Disk full, or a failed fsync."""

    code = "storage-failed"

    def __init__(self, message: str, *, lack: Lack = "is full or failing") -> None:
        super().__init__(message)
        self.lack = lack

    def told_by(self, party: str) -> "StorageFailed":
        """The same as other parties hear it of the party whose disk it is. The message here may hold a path."""
        return StorageFailed(
            f"the disk of {party} {self.lack}: it can record nothing; its log says where", lack=self.lack
        )


class Fenced(StorageFailed):
    """Another node of the party has taken over; what this one was about to write was not written."""

    code = "fenced"


class InvalidTransition(JuntoError):
    """Our bug: an event that the state does not know. Changes nothing; carries the story."""

    code = "invalid-transition"


def error_from_code(code: str, message: str) -> JuntoError:
    """The error a peer's code stands for; an unknown code is a `PeerFault`."""
    return _BY_CODE.get(code, PeerFault)(message)


def _tree(cls: type[JuntoError]) -> dict[str, type[JuntoError]]:
    found = {cls.code: cls}
    for child in cls.__subclasses__():
        found.update(_tree(child))
    return found


_BY_CODE = _tree(JuntoError)
