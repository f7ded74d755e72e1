# SPDX-License-Identifier: Apache-2.0
"""The resources of a node and its patience: `node.toml` in the party's home, all of it optional.

memory   = "300MB"     # of one fragment; beyond it, it spills to disk
threads  = 2           # of one fragment
spill    = "64GB"      # of disk, for what does not fit in memory
cache    = "4GB"       # of copies of other parties' open tables
offers   = "10s"       # how long an asker waits for everyone's offer
absence  = "5s"        # how long a participant's link may be down before its task ends, naming it
longest  = "1h"        # the longest deadline a task may have
judging  = "10s"       # how long a proposed plan may take to be read
network  = "lan"       # or "wan": the link's patience
log      = "info"      # or "debug", "warning", "error"
data_folders = ["/srv/acme"]  # whose files operators may publish over the network; the home's data/, if left out
compute  = ["hub"]     # parties for which this one computes what reads none of its own data; nobody, if left out

[resources]            # of this node, for the tasks of all parties
slots  = 8             # fragments that compute at once; the machine's processors, if left out
memory = "8GB"         # held by tasks from offer to end; half of the machine's, if left out
disk   = "64GB"        # likewise, for outputs that wait on disk

[resources.cap]        # what one other party's tasks may have at a time; no limit where none is named
default = { tasks = 100 }
bea     = { slots = 1, memory = "200MB", disk = "1GB", tasks = 5 }

[quota]                # what is taken of one other party: a day (UTC), and of tasks that have not ended at a time
statements = 100000
bytes      = "256MB"
tasks      = 1000

[ha]                                   # if several nodes of this party share one journal, one of them acting
store = "sqlite:/srv/acme/journal.db"  # or "postgresql://junto@db.acme.example/junto"
lease = "1500ms"                       # how long the acting one may be silent before another takes over

[[webhook]]                            # is told of notices; as many as you like
url         = "https://ops.example/x"
secret_file = "keys/hook.key"          # `whsec_…`, beside this file unless the path is absolute
kinds       = ["ended", "wait"]        # all but "state" and "step" if there are none
"""

import math
import os
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from junto.errors import InvalidInput
from junto.journal.places import Place, place_at
from junto.node.files import in_words
from junto.node.quotas import Quota
from junto.node.webhook import Webhook, checked_url, read_secret
from junto.tasks.capacity import Cap, Capacity
from junto.tasks.notices import KINDS, PROGRESS, Kind
from junto.tasks.waiting import Patience
from junto.trust.allow import check_parties
from junto.types import PartyId, seconds_of

_WEBHOOKS = 16
_MOST = 100_000
_MOST_STATEMENTS = 100_000_000
_LEAST_LEASE_SECONDS = 0.5
_MOST_LEASE_SECONDS = 60.0

_QUOTA = Quota()

_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


class _Webhook(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: str
    secret_file: str
    kinds: tuple[Kind, ...] = ()


class _Cap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    slots: int | None = None
    memory: str | None = None
    disk: str | None = None
    tasks: int | None = None


class _Resources(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    slots: int | None = None
    memory: str | None = None
    disk: str = "64GB"
    cap: dict[str, _Cap] = {}


class _Quota(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    statements: int = _QUOTA.statements
    bytes: str = f"{_QUOTA.bytes // 10**6}MB"
    tasks: int = _QUOTA.tasks


class _Ha(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    store: str
    lease: str = "1500ms"


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    memory: str = "200MB"
    threads: int = 2
    spill: str = "64GB"
    cache: str = "4GB"
    offers: str = "10s"
    absence: str = "5s"
    longest: str = "1h"
    judging: str = "10s"
    network: Literal["lan", "wan"] = "lan"
    log: Literal["debug", "info", "warning", "error"] = "info"
    data_folders: list[str] = []
    compute: list[str] = []
    resources: dict[str, object] = {}  # a `_Resources`; here as it is written, so that its default can be, too
    quota: dict[str, object] = {}  # a `_Quota`, likewise
    ha: dict[str, object] = {}  # an `_Ha`, or empty
    webhook: list[_Webhook] = []


@dataclass(frozen=True, slots=True)
class Shared:
    """The place where several nodes of a party keep their one journal, and the time that a lease of it lasts."""

    place: Place
    lease_seconds: float


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """The settings of one node, in bytes and seconds."""

    memory_bytes: int
    threads: int
    spill_bytes: int
    cache_bytes: int
    patience: Patience
    longest_seconds: float
    judging_seconds: float
    network: Literal["lan", "wan"]
    log: str
    webhooks: tuple[Webhook, ...] = ()
    capacity: Capacity = field(default_factory=Capacity)
    shared: Shared | None = None
    quota: Quota = field(default_factory=Quota)
    data_folders: tuple[Path, ...] = ()  # empty: the home's data/
    compute: tuple[PartyId, ...] = ()

    @property
    def cpu_seconds(self) -> int:
        """The processor time of one fragment: all its threads, for as long as the longest task."""
        return math.ceil(self.longest_seconds * self.threads)


def read_settings(path: Path) -> NodeSettings:
    """The settings in a file; the defaults if there is none. Raises InvalidInput, naming file and key."""
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        file = msgspec.convert(tomllib.loads(text), _File)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {in_words(error)}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise InvalidInput(f"{path}: {error}") from None
    if not 1 <= file.threads <= 1024:
        raise InvalidInput(f"{path}: threads = {file.threads}: from 1 to 1024")
    return NodeSettings(
        memory_bytes=_bytes(path, "memory", file.memory),
        threads=file.threads,
        spill_bytes=_bytes(path, "spill", file.spill),
        cache_bytes=_bytes(path, "cache", file.cache),
        patience=Patience(
            offer_seconds=_seconds(path, "offers", file.offers),
            absence_seconds=_seconds(path, "absence", file.absence),
        ),
        longest_seconds=_seconds(path, "longest", file.longest),
        judging_seconds=_seconds(path, "judging", file.judging),
        network=file.network,
        log=file.log,
        webhooks=_webhooks(path, file.webhook),
        shared=_shared(path, file.ha) if file.ha else None,
        compute=_compute(path, file.compute),
        capacity=_capacity(path, file),
        quota=_quota(path, file.quota),
        data_folders=tuple(path.parent / folder for folder in file.data_folders),
    )


def _compute(path: Path, parties: list[str]) -> tuple[PartyId, ...]:
    try:
        check_parties(tuple(parties))
    except InvalidInput as error:
        raise InvalidInput(f"{path}: compute: {error}") from None
    return tuple(sorted(PartyId(party) for party in parties))


def _capacity(path: Path, file: _File) -> Capacity:
    try:
        given = msgspec.convert(file.resources, _Resources)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{path}: [resources]: {error}") from None
    fragment = _bytes(path, "memory", file.memory)
    memory = max(_machine_bytes() // 2, fragment)
    if given.memory is not None:
        memory = _bytes(path, "resources.memory", given.memory)
    if memory < fragment:
        raise InvalidInput(f"{path}: resources.memory is less than memory = {file.memory!r}, what one fragment may use")
    slots = os.cpu_count() or 1 if given.slots is None else given.slots
    caps = {PartyId(party): _cap(path, party, cap) for party, cap in given.cap.items()}
    return Capacity(
        slots=_count(path, "resources.slots", slots),
        memory=memory,
        disk=_bytes(path, "resources.disk", given.disk),
        cap=caps.pop(PartyId("default"), Cap()),
        caps=caps,
    )


def _quota(path: Path, written: dict[str, object]) -> Quota:
    try:
        given = msgspec.convert(written, _Quota)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{path}: [quota]: {error}") from None
    return Quota(
        statements=_count(path, "quota.statements", given.statements, _MOST_STATEMENTS),
        bytes=_bytes(path, "quota.bytes", given.bytes),
        tasks=_count(path, "quota.tasks", given.tasks),
    )


def _cap(path: Path, party: str, given: _Cap) -> Cap:
    key = f"resources.cap.{party}"
    return Cap(
        slots=_count(path, f"{key}.slots", given.slots) if given.slots is not None else None,
        memory=_bytes(path, f"{key}.memory", given.memory) if given.memory is not None else None,
        disk=_bytes(path, f"{key}.disk", given.disk) if given.disk is not None else None,
        tasks=_count(path, f"{key}.tasks", given.tasks) if given.tasks is not None else None,
    )


def _count(path: Path, key: str, number: int, most: int = _MOST) -> int:
    if not 1 <= number <= most:
        raise InvalidInput(f"{path}: {key} = {number}: from 1 to {most}")
    return number


def _machine_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _shared(path: Path, written: dict[str, object]) -> Shared:
    try:
        given = msgspec.convert(written, _Ha)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{path}: ha: {error}") from None
    seconds = _seconds(path, "ha.lease", given.lease)
    if not _LEAST_LEASE_SECONDS <= seconds <= _MOST_LEASE_SECONDS:
        raise InvalidInput(f"{path}: ha.lease = {given.lease!r}: from 500ms to 60s")
    try:
        return Shared(place_at(given.store), seconds)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: ha: {error}") from None


def _bytes(path: Path, key: str, text: str) -> int:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?B)\s*", text)
    if match is None:
        raise InvalidInput(f"{path}: {key} = {text!r} is not a size; write 300MB or 4GB")
    size = int(float(match[1]) * _BYTES[match[2]])
    if size < 1:
        raise InvalidInput(f"{path}: {key} = {text!r} is nothing; write 300MB or 4GB")
    return size


def _seconds(path: Path, key: str, text: str) -> float:
    try:
        return seconds_of(text)
    except ValueError as error:
        raise InvalidInput(f"{path}: {key}: {error}") from None


def _webhooks(path: Path, given: list[_Webhook]) -> tuple[Webhook, ...]:
    if len(given) > _WEBHOOKS:
        raise InvalidInput(f"{path}: {len(given)} webhooks; at most {_WEBHOOKS}")
    found: dict[str, Webhook] = {}
    for number, one in enumerate(given, start=1):
        try:
            url = checked_url(one.url)
            hook = Webhook(url, read_secret(path.parent / one.secret_file), frozenset(one.kinds or _called_for()))
        except InvalidInput as error:
            raise InvalidInput(f"{path}: webhook {number}: {error}") from None
        if hook.name in found:
            raise InvalidInput(f"{path}: webhook {number} has the url of an earlier one; name all its kinds there")
        found[hook.name] = hook
    return tuple(found.values())


def _called_for() -> frozenset[Kind]:
    return frozenset(KINDS) - PROGRESS
