# SPDX-License-Identifier: Apache-2.0
"""A process that appends as fast as it can and prints the id of each statement once it is acknowledged, until killed.

Arguments: the journal, the node's key and its certificate (PEM files), the time, and what its ids begin with.
"""

import asyncio
import itertools
import sys
from pathlib import Path

import msgspec

from junto.journal import checkpoint, statement
from junto.journal.statement import Statement
from junto.journal.store import Journal
from junto.trust.certificates import Identity, load_identity


async def append_for_ever(journal: Journal, node: Identity, now: float, run: str) -> None:
    numbers = itertools.count()

    async def one_after_the_other() -> None:
        for number in numbers:
            body = msgspec.Raw(b'{"x":"%s"}' % (b"x" * (number * 37 % 2000)))
            said = Statement(kind="decision", author=node.name.uri, id=f"{run}-{number}", at=now, body=body)
            await journal.append(statement.sign(said, node.key), said)
            sys.stdout.write(f"{said.id}\n")
            sys.stdout.flush()

    await asyncio.gather(*(one_after_the_other() for _ in range(8)))


def main(path: str, key: str, certificate: str, now: str, run: str) -> None:
    node = load_identity(Path(key).read_bytes(), Path(certificate).read_text())
    origin = checkpoint.origin_of(node.name.consortium, node.name.party, node.name.node)
    with Journal(Path(path), origin=origin, key=node.key, on_fatal=sys.exit) as journal:
        asyncio.run(append_for_ever(journal, node, float(now), run))


if __name__ == "__main__":
    main(*sys.argv[1:])
