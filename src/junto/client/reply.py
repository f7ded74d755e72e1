# SPDX-License-Identifier: Apache-2.0
"""Reads what the node replied."""

from typing import TypeVar

import msgspec

from junto.errors import PeerFault

T = TypeVar("T")


def decoded(data: bytes, shape: type[T]) -> T:
    """The node's reply. Raises PeerFault if it is of another shape, as another version's would be."""
    try:
        return msgspec.json.decode(data, type=shape)
    except msgspec.MsgspecError as error:
        raise PeerFault("the node answered in another version's words; use the same version of junto") from error
