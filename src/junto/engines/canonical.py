# SPDX-License-Identifier: Apache-2.0
"""One digest of a table, whoever computed it: equal exactly when two answers say the same.

These count: names and types of the columns, and the rows, each as often as it is there; their order only if it was
asked for. These do not: the cuts into batches, the sign of zero and the bits of NaN, which SQL does not tell apart.
Reals otherwise count to the last bit.

    digest = SHA-256(header · body)
    header = JSON of ["junto rows 1", ordered or not, names, types], its length before it in 4 bytes, big-endian
    body   = the rows' encodings (`keys.py`), each as its SHA-256; sorted unless the order counts

The digest is not salted. It is for rows that everybody may see: of others it would let a guess be tested.
"""

import hashlib
from collections.abc import Iterable, Sequence

import msgspec
import pyarrow as pa

from junto.engines import keys
from junto.errors import InvalidInput
from junto.types import Digest


def rows_digest(
    batches: Iterable[pa.RecordBatch], names: Sequence[str], types: Sequence[str], *, ordered: bool = False
) -> Digest:
    """The digest of some rows, read batch by batch; 32 bytes a row are held.

    names and types: of all columns, in order, the types as DuckDB writes them; the batches' own names do not count.
    Raises InvalidInput if the batches are of other types, or a type has no canonical bytes (nested ones, INTERVAL).
    """
    _check_types(names, types)
    header = msgspec.json.encode(("junto rows 1", ordered, tuple(names), tuple(types)))
    body = [hashlib.sha256(row).digest() for batch in batches for row in keys.encode(batch, types)]
    if not ordered:
        body.sort()
    digest = hashlib.sha256(len(header).to_bytes(4, "big") + header)
    for row in body:
        digest.update(row)
    return Digest("sha256:" + digest.hexdigest())


def _check_types(names: Sequence[str], types: Sequence[str]) -> None:
    if len(names) != len(types):
        raise InvalidInput(f"{len(names)} columns have {len(types)} types")
    for name, type_ in zip(names, types, strict=True):
        try:
            keys.arrow_type(type_)
        except InvalidInput:
            raise InvalidInput(
                f"column {name[:60]} of type {type_[:60]} has no canonical bytes to certify: cast it to VARCHAR"
            ) from None
