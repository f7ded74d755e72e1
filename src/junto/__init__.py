# SPDX-License-Identifier: Apache-2.0
"""Organisations that will not hand over their data compute one answer together."""

from typing import TYPE_CHECKING

from junto.errors import (
    Cancelled,
    DeadlineExceeded,
    Deviation,
    InvalidInput,
    JuntoError,
    PeerFault,
    Refused,
    Unavailable,
    UnsupportedSQL,
)

if TYPE_CHECKING:
    from junto.client.desk import Desk, connect
    from junto.client.question import Answer, Question
    from junto.inprocess import Local, local

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Cancelled",
    "DeadlineExceeded",
    "Desk",
    "Deviation",
    "InvalidInput",
    "JuntoError",
    "Local",
    "PeerFault",
    "Question",
    "Refused",
    "Unavailable",
    "UnsupportedSQL",
    "connect",
    "local",
]

_LATER = {
    "Answer": "junto.client.question",
    "Desk": "junto.client.desk",
    "Local": "junto.inprocess",
    "Question": "junto.client.question",
    "connect": "junto.client.desk",
    "local": "junto.inprocess",
}


def __getattr__(name: str) -> object:
    """Import what the client needs when it is first used: `import junto` stays fast."""
    from importlib import import_module

    if name not in _LATER:
        raise AttributeError(f"module 'junto' has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)
