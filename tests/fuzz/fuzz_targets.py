# SPDX-License-Identifier: Apache-2.0
"""What is fuzzed: for each target, a function that takes any bytes and raises only if a promise is broken.

reviewer    a text is refused with PeerFault, or DuckDB's binder reads of it what was judged
frames      a session ends in order or goes on, wherever the bytes are cut; it raises nothing
envelopes   what decodes is spelled in the one way, and a statement in it is read or refused by name
settings    a node.toml, a dataset file, a plan: read, or refused in one line
"""

import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path, PurePath

import msgspec
from fuzz_fragments import TABLES, Binder, Made, bare_query, check

from junto.catalog import spec
from junto.errors import InvalidInput, JuntoError, PeerFault
from junto.journal.statement import read_statement
from junto.link.frames import Hello, encode
from junto.link.session import Session
from junto.link.settings import LinkSettings
from junto.node.settings import read_settings
from junto.plan import expressions, fragment, steps
from junto.plan.disclosure import disclosures
from junto.plan.review import check as check_plan
from junto.plan.steps import Combine, Encoding, Measure
from junto.trust import envelope

_HERE = Hello(1, 1, "0.1.0", "skies", 1, "sha256:aa", "spiffe://skies/delta/main", "one", 0.0, 4, 4)
_THERE = Hello(1, 1, "0.1.0", "skies", 1, "sha256:aa", "spiffe://skies/united/main", "two", 0.0, 4, 4)
_LABELS: tuple[tuple[Combine, Encoding, str], ...] = (
    ("sum", "count", "BIGINT"),
    ("sum", "integer", "DECIMAL(38,0)"),
    ("sum", "real", "DOUBLE"),
    ("min", "value", "BIGINT"),
    ("max", "value", "BIGINT"),
)


class Broken(Exception):
    """A promise does not hold; says which."""


def reviewer(data: bytes) -> None:
    """A fragment: the first byte says how many keys it claims, the second which measures, the rest is its text."""
    if len(data) < 3:
        return
    text = data[2:].decode(errors="replace")
    with suppress(InvalidInput):  # then the reviewer must refuse it, too
        text = expressions.spelling(expressions.parse(text))
    keys = None if data[0] % 4 == 3 else tuple(f"k{i}" for i in range(data[0] % 4))
    labels = [] if keys is None else [_LABELS[(data[1] >> shift) % 5] for shift in range(1 + data[0] // 4 % 3)]
    measures = tuple(Measure(f"m{i}", *label) for i, label in enumerate(labels))
    made = Made(bare_query(text, keys, ("BIGINT",) * len(keys or ()), measures))
    try:
        reading = fragment.read(made.query, TABLES)
    except PeerFault:
        return
    fault = check(made, reading, _binder())
    if fault:
        raise Broken(f"{fault}: {text}")


@cache
def _binder() -> Binder:
    return Binder()


def frames(data: bytes) -> None:
    """A peer's bytes after its Hello, cut where the first byte says."""
    session = Session(_HERE, _THERE.name, LinkSettings(calls=3, streams=2, call_bytes=2000), 0.0)
    stream = encode(_THERE) + data[1:] if data[:1] < b"\xf0" else data[1:]
    cut = 1 + (data[0] if data else 0)
    for at in range(0, len(stream), cut):
        session.receive(stream[at : at + cut], float(at))
        if sum(map(len, session.outgoing())) > (1 << 20):
            raise Broken("a session answers a peer with more than a megabyte")


def envelopes(data: bytes) -> None:
    """An envelope, and the statement in it."""
    try:
        found = envelope.decode(data, "an envelope")
    except InvalidInput:
        return
    if envelope.encode(found) != data.rstrip():
        raise Broken("an envelope decodes that is spelled in another way")
    try:
        read_statement(data)
    except JuntoError:
        return


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="junto-fuzz-"))


def settings(data: bytes) -> None:
    """A file that an operator or an owner writes, or a plan: the first byte says which."""
    kind, rest = (data[0] % 3 if data else 0), data[1:]
    try:
        if kind == 0:
            path = _folder() / "node.toml"
            path.write_bytes(rest)
            read_settings(path)
        elif kind == 1:
            spec.parse(rest, PurePath("owner/dataset.toml"))
        else:
            plan = steps.decode(rest)
            check_plan(plan)
            disclosures(plan)
    except msgspec.ValidationError:
        if kind != 2:
            raise
    except msgspec.DecodeError:
        if kind != 2:
            raise
    except JuntoError as error:
        if "\n" in str(error):
            raise Broken(f"a refusal has several lines: {error!r}") from error


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "reviewer": reviewer,
    "frames": frames,
    "envelopes": envelopes,
    "settings": settings,
}
