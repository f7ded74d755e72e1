# SPDX-License-Identifier: Apache-2.0
"""The output of a step at this party: tables, rows on disk, protocols' results; and the form in which it is written."""

from collections.abc import Callable
from typing import TypeAlias, assert_never

import msgspec
import numpy as np
import pyarrow as pa

from junto.errors import PeerFault
from junto.node.cache import Copy
from junto.node.exchange import Content
from junto.node.groups import ipc_bytes, table_of
from junto.node.keep import Place
from junto.node.spool import Spooled
from junto.secure.groupkeys import PassedKeys, Selection
from junto.secure.maskedsum import Words

Rows: TypeAlias = Spooled | Copy
"""Rows on disk, as an Arrow IPC stream: encrypted, or open data in the cache."""

Local: TypeAlias = pa.Table | Rows | Selection | PassedKeys | Words | None
"""The output of a step at this party."""


class _Nothing(msgspec.Struct, frozen=True, tag="nothing"):
    pass


class _Rows(msgspec.Struct, frozen=True, tag="rows"):
    place: Place


class _Table(msgspec.Struct, frozen=True, tag="table"):
    place: Place


class _Selection(msgspec.Struct, frozen=True, tag="selection"):
    shape: tuple[int, int]
    cells: Place
    positions: Place


class _Keys(msgspec.Struct, frozen=True, tag="keys"):
    some: bool
    keys: Place
    shape: tuple[int, int]
    cells: Place


class _Words(msgspec.Struct, frozen=True, tag="words"):
    shape: tuple[int, ...]
    place: Place


_Written = _Nothing | _Rows | _Table | _Selection | _Keys | _Words


def encode(local: Local, place: Callable[[Content], Place]) -> bytes:
    """The output of a step, written down; `place` says where its large parts lie."""
    written: _Written
    match local:
        case None:
            written = _Nothing()
        case Spooled() | Copy():
            written = _Rows(place(local))
        case pa.Table():
            written = _Table(place(ipc_bytes(local)))
        case Selection(size, cells, positions):
            written = _Selection((len(cells), size), place(cells.tobytes()), place(positions.tobytes()))
        case PassedKeys(keys, some, cells):
            shape = (len(cells), len(keys))
            written = _Keys(some, place(msgspec.msgpack.encode(keys)), shape, place(cells.tobytes()))
        case np.ndarray():
            written = _Words(local.shape, place(np.ascontiguousarray(local).tobytes()))
        case _:
            raise TypeError(f"a step gave a {type(local).__name__}")
    return msgspec.msgpack.encode(written)


def decode(data: bytes, content: Callable[[Place], Content], whole: Callable[[Content], bytes]) -> Local:
    """The output that `encode` wrote. Raises msgspec.MsgspecError, ValueError, PeerFault, and errors of `content` and
    `whole`."""
    written: _Written = msgspec.msgpack.decode(data, type=_Written)
    match written:
        case _Nothing():
            return None
        case _Rows(place):
            found = content(place)
            if isinstance(found, bytes):
                raise PeerFault("rows are kept in a file")
            return found
        case _Table(place):
            return table_of(whole(content(place)))
        case _Selection(shape, cells, positions):
            return Selection(
                shape[1],
                np.frombuffer(whole(content(cells)), dtype=np.bool_).reshape(shape),
                np.frombuffer(whole(content(positions)), dtype=np.int64),
            )
        case _Keys(some, keys, shape, cells):
            flags = np.frombuffer(whole(content(cells)), dtype=np.bool_).reshape(shape)
            return PassedKeys(msgspec.msgpack.decode(whole(content(keys)), type=list[bytes]), some, flags)
        case _Words(shape, place):
            return np.frombuffer(whole(content(place)), dtype=np.uint64).reshape(shape)
        case _:
            assert_never(written)
