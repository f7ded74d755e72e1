# SPDX-License-Identifier: Apache-2.0
"""A child that reads plans, one at a time: it parses their SQL, and holds nothing but the rules it is told."""

import msgspec

from junto.children import inside
from junto.children.pipe import Broken, Pipe
from junto.errors import InvalidInput, JuntoError, PeerFault
from junto.node.reading import Faulty, Found, Given, read_plan

_MEMORY_BYTES = 512 << 20


def serve(pipe: Pipe) -> None:
    """Say that we are there, then read what comes over the pipe, until it is Broken."""
    inside.limit_memory(_MEMORY_BYTES)
    pipe.send(b"")
    while True:
        _, body = pipe.receive()
        try:
            given = msgspec.msgpack.decode(body, type=Given)
        except msgspec.MsgspecError:
            raise Broken("the other side sends no plan") from None
        pipe.send(b"", msgspec.msgpack.encode(_read(given)))


def _read(given: Given) -> Found | Faulty:
    try:
        return read_plan(given)
    except JuntoError as error:
        return Faulty(error.code, str(error))
    except MemoryError:
        return Faulty(InvalidInput.code, "the plan takes too much memory to read: ask in several smaller questions")
    except Exception as error:  # noqa: BLE001  # a fault of ours refuses a plan, it does not let one pass
        return Faulty(PeerFault.code, f"the plan cannot be read ({type(error).__name__})")


if __name__ == "__main__":
    inside.main(serve)
