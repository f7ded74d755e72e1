# SPDX-License-Identifier: Apache-2.0
"""The methods a node answers over a link, and the bodies they carry: JSON for users, envelopes between nodes.

A method whose name starts with `user.` is answered only to users of the node's own party,
one that starts with `operator.` only to those of them who may act for it; `peer.` and `link.` only to
nodes of other parties of the charter, `party.` only to other nodes of the same party.
"""

from typing import Literal

import msgspec

from junto.types import DatasetName, Digest, NodeId, PartyId, StepId, TaskId, Withheld


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request or reply; an unknown field is refused."""


# ── between nodes ───────────────────────────────────────────────────────────────────────────────────

PEER_FACTS = "peer.facts"  # () → Envelopes: the datasets and certificates this node has published
PEER_CLOCK = "peer.clock"  # () → the clock of this node, unix seconds
PEER_TELL = "peer.tell"  # Envelopes → (): statements, in order; answered when they are durable here
PEER_PULL = "peer.pull"  # an output's address → its parcel
PEER_READ = "peer.read"  # an output's address → its bytes, streamed
PEER_LENDS = "peer.lends"  # Lends → whether the party computes for that asker now
PEER_SEEN = "peer.seen"  # () → Seen: the last head that this node has seen of the caller's journal
PEER_SAID = "peer.said"  # Before → Said: the caller's own statements that this node holds, the latest first
PEER_UNRECORDED = "peer.unrecorded"  # Unrecorded → (): a task ended at the caller, whose journal takes no statement
PEER_NOTE = "peer.note"  # Note → (): a lapse that ends nothing; no statement, it changes nothing


# ── between nodes of one party ──────────────────────────────────────────────────────────────────────

PARTY_HELP = "party.help"  # Help → (): a node that stands by offers itself to the one that acts
PARTY_COMPUTE = "party.compute"  # Compute → the rows as an Arrow IPC file and its SHA-256, streamed; asked of a helper


class Help(Message, frozen=True):
    """The number of fragments that a helper computes at once."""

    slots: int


class Compute(Message, frozen=True):
    """A fragment of a contracted plan, a `Query` step in JSON, which reads datasets of the party alone."""

    task: TaskId
    step: msgspec.Raw
    threads: int = 0  # 0: as many as the helper gives to one fragment


class Envelopes(Message, frozen=True):
    """Signed statements, oldest first."""

    envelopes: tuple[bytes, ...]


class Lends(Message, frozen=True):
    """An asker, for whose questions the answering party may compute."""

    asker: PartyId


class Seen(Message, frozen=True):
    """A head of a journal, the id of the statement that told it (empty if none has), and its party's latest start."""

    size: int
    root: str
    start: int
    statement: str
    latest: int
    instance: str


class Before(Message, frozen=True):
    """A place in the answering node's journal."""

    position: int


class Said(Message, frozen=True):
    """Signed statements, the latest first, and the place of the last of them, to go on from."""

    envelopes: tuple[bytes, ...]
    last: int


class Note(Message, frozen=True):
    """A participant's word that a wait passed its limit, or that a party stays away from it, or is back."""

    task: TaskId
    kind: str
    party: PartyId
    id: str  # of the sender's own notice


# ── from users to their own node ────────────────────────────────────────────────────────────────────

USER_STATUS = "user.status"  # () → Status
USER_DATASETS = "user.datasets"  # () → Catalogue
USER_CONSENTS = "user.consents"  # () → for whom each party computes what reads none of its data, as JSON
USER_ASK = "user.ask"  # Ask → Which
USER_WATCH = "user.watch"  # Which → Progress, one a piece, streamed until the task has ended
USER_WAIT = "user.wait"  # Which → Progress once the task has ended, then its answer if that is small and the caller's
USER_RESULT = "user.result"  # Which → the answer as an Arrow IPC stream
USER_TASKS = "user.tasks"  # () → Progress, newest first, one a line, streamed; long questions are cut
USER_TASK = "user.task"  # Which → Progress
USER_CANCEL = "user.cancel"  # Which → ()
USER_NOTICES = "user.notices"  # Follow → Notice, one a piece, streamed without end
USER_TRIGGERS = "user.triggers"  # () → Triggers
USER_TRIGGER_CREATE = "user.trigger-create"  # CreateTrigger → TriggerView
USER_TRIGGER_CHANGE = "user.trigger-change"  # ChangeTrigger → ()
USER_TRIGGER_FIRE = "user.trigger-fire"  # FireTrigger → Which
USER_DOCTOR = "user.doctor"  # Doctor → its lines, streamed

OPERATOR_PUBLISH = "operator.publish"  # Publish → Published
OPERATOR_WITHDRAW = "operator.withdraw"  # Withdraw → ()
OPERATOR_GRANTS = "operator.grants"  # () → the party's grants, as JSON
OPERATOR_GRANT = "operator.grant"  # Grant as JSON → Granted
OPERATOR_REVOKE = "operator.revoke"  # Revoke → ()
OPERATOR_HOOKS = "operator.hooks"  # () → Hooks
OPERATOR_HOOK_TEST = "operator.hook-test"  # () → HookTests: a test notice to every webhook
OPERATOR_TOP = "operator.top"  # () → Top, one a piece, streamed without end


Absent = Literal["", "wait", "fail", "go-on"]
"""The fate of a task when a participant stays away: it waits until the deadline, fails, or goes on without."""


class Catalogue(Message, frozen=True):
    """The datasets of all parties, what the caller may do with those of its own, and for whom each party computes."""

    datasets: msgspec.Raw
    rights: msgspec.Raw
    consents: msgspec.Raw


class Ask(Message, frozen=True):
    """A compiled question: the plan, for what purpose, and how long it may take.

    `task` is an id of the asker's choice. Asked again with it, the same question of the same user is the same task, so
    an ask whose answer was lost may be repeated. Without it the node chooses one.
    """

    plan: msgspec.Raw
    seconds: float
    purpose: str = ""
    priority: int = 0
    task: TaskId = TaskId("")
    absent: Absent = ""  # what becomes of it when a participant stays away
    at_least: int = 0  # with "go-on": so many participants must be left
    double: bool = False  # two nodes of each party compute its fragments, where it runs two


class Which(Message, frozen=True):
    """A task."""

    task: TaskId


class Waiting(Message, frozen=True):
    """Somebody is waited for: unix seconds since and until when."""

    party: PartyId
    what: str
    since: float
    until: float
    why: str = ""


class Part(Message, frozen=True):
    """A party's finished part of a step: the timeline's entries."""

    step: StepId
    kind: str
    party: PartyId
    rows: int | None
    bytes: int
    seconds: float


class Reading(Message, frozen=True):
    """A dataset version that the answer was computed from."""

    party: PartyId
    dataset: DatasetName
    version: Digest


class Signature(Message, frozen=True):
    """One party's confirmation of a certified step, and the statement of everybody's journal that holds it."""

    party: PartyId
    step: StepId  # the step itself, one that computes it again, or the move by which it came
    digest: Digest
    statement: str


class Certificate(Message, frozen=True):
    """A step that several parties computed: the digest that counts (empty: none has a majority), and who signed."""

    step: StepId
    digest: Digest
    signed: tuple[Signature, ...]


class Deviation(Message, frozen=True):
    """A party told another digest of a step than what counts; `line` says so with both."""

    step: StepId
    party: PartyId
    digest: Digest
    counts: Digest  # empty if none has a majority
    line: str


class Doubled(Message, frozen=True):
    """The comparison of the second result of a party's fragment with the one that counts; `line` says it in words.

    first and second are salted digests, equal exactly when the rows are; empty if there was no second.
    """

    step: StepId
    party: PartyId
    nodes: tuple[NodeId, ...]
    first: Digest
    second: Digest
    statement: str
    line: str


class ReceiptView(Message, frozen=True):
    """A receipt, as a person reads it."""

    task: TaskId
    statement: str  # the receipt's id in every participant's journal
    contract: str
    plan: Digest
    result: Digest
    rows: int
    withheld: Withheld
    versions: tuple[Reading, ...]
    seconds: float
    signer: str
    certificates: tuple[Certificate, ...] = ()
    doubled: tuple[Doubled, ...] = ()


class Progress(Message, frozen=True):
    """A task as its party's node sees it now."""

    task: TaskId
    question: str
    asker: PartyId
    user: str
    purpose: str
    participants: tuple[PartyId, ...]
    state: str
    opened_at: float
    deadline: float
    parts: tuple[Part, ...] = ()
    parts_total: int = 0
    waits: tuple[Waiting, ...] = ()
    code: str = ""
    party: str = ""  # whose doing the end was
    reason: str = ""
    ended_at: float | None = None
    receipt: ReceiptView | None = None
    missing: tuple[PartyId, ...] = ()  # left out, because they stayed away
    continued: TaskId = TaskId("")  # the task that goes on without those who stayed away from this one
    attempts: dict[StepId, int] = {}  # joint steps that were begun more than once
    certificates: tuple[Certificate, ...] = ()  # as the node itself heard them
    deviations: tuple[Deviation, ...] = ()


class Follow(Message, frozen=True):
    """The notices wanted: of these tasks and kinds, all if none are named, beginning so many seconds back."""

    past_seconds: float = 0.0
    tasks: tuple[TaskId, ...] = ()
    kinds: tuple[str, ...] = ()


class Notice(Message, frozen=True):
    """One thing that happened at this node; told again, it has the same id."""

    id: str
    kind: str
    task: TaskId  # empty if it is about no task
    party: PartyId  # whom it concerns
    by: PartyId
    text: str
    at: float
    severity: str


class HookStatus(Message, frozen=True):
    """One webhook: what it is told, what waits for it, and how its last attempt went."""

    hook: str  # a name made of its address; the address itself may hold a token
    to: str  # scheme, host and port
    kinds: tuple[str, ...]
    pending: int
    given_up: int
    failures: int  # in a row
    next_at: float  # of the next attempt; 0 if none is due
    last_at: float  # of the last attempt; 0 if there was none
    last_reply: str
    gone: bool  # it answered 410: nothing is sent to it any more


class Hooks(Message, frozen=True):
    """The webhooks of this node."""

    hooks: tuple[HookStatus, ...]


class HookTest(Message, frozen=True):
    """The reply of one webhook."""

    hook: str
    to: str
    ok: bool
    reply: str
    seconds: float


class HookTests(Message, frozen=True):
    """The replies of all webhooks."""

    tests: tuple[HookTest, ...]


class CreateTrigger(Message, frozen=True):
    """A question to ask whenever something comes: a time (`cron`, on the clocks of `zone`), a new version of `dataset`
    (of `party`, or of any), or the end of `after`: of each task of a trigger, or of one task."""

    name: str
    plan: msgspec.Raw
    seconds: float  # each task's
    purpose: str = ""
    priority: int = 0
    absent: Absent = ""  # as of `Ask`, for each task
    at_least: int = 0
    double: bool = False
    missed: Literal["catch-up", "skip"] = "catch-up"
    user: str = ""  # whose it is; an operator may name another
    cron: str = ""
    zone: str = "UTC"
    dataset: DatasetName = DatasetName("")
    party: PartyId = PartyId("")
    after: str = ""
    ends: Literal["done", "any"] = "any"


class ChangeTrigger(Message, frozen=True):
    """A trigger's new state."""

    name: str
    state: Literal["active", "paused", "removed"]


class FireTrigger(Message, frozen=True):
    """Ask a trigger's question now, as the task of this id, which the user chose."""

    name: str
    task: TaskId


class FiringView(Message, frozen=True):
    """One firing: its occasion, when it was due (unix seconds), its task, and how that ended."""

    id: str
    occasion: str
    due: float
    task: TaskId
    user: str  # who fired it by hand; empty for its condition
    end: str  # of its task; `running`, or `no task` with the reason
    reason: str = ""


class TriggerView(Message, frozen=True):
    """A trigger as its party's node sees it now."""

    id: str
    name: str
    user: str
    question: str
    parties: tuple[PartyId, ...]
    when: str
    missed: str
    seconds: float
    purpose: str
    priority: int
    state: str
    created_at: float
    next_at: float | None = None  # by the clock
    waiting: int = 0  # occasions that wait for the running task
    firings: tuple[FiringView, ...] = ()  # the latest first


class Triggers(Message, frozen=True):
    """A party's triggers, oldest first."""

    triggers: tuple[TriggerView, ...]


class Publish(Message, frozen=True):
    """A dataset file, by its path on the node's machine; `proof` is of a caller that can write in the node's home."""

    path: str
    proof: str = ""


class PublishedDataset(Message, frozen=True):
    """One dataset's new version."""

    name: DatasetName
    version: Digest
    rows: int
    columns: int
    rules: int


class Published(Message, frozen=True):
    """The datasets published, and their differences from other parties' datasets of the same name."""

    published: tuple[PublishedDataset, ...]
    mismatches: tuple[str, ...] = ()


class Withdraw(Message, frozen=True):
    """A dataset that is no longer offered."""

    name: DatasetName


class Granted(Message, frozen=True):
    """The grant's id, to revoke it by."""

    id: str


class Revoke(Message, frozen=True):
    """A grant that no longer holds."""

    id: str


class LinkStatus(Message, frozen=True):
    """The link to one party."""

    party: PartyId
    up: bool
    since: float
    detail: str
    address: str
    dialled: bool
    rtt_seconds: float
    bytes_in: int
    bytes_out: int


class NodeStep(Message, frozen=True):
    """A fragment that a node computes, `since` then."""

    task: TaskId
    step: StepId
    since: float


class NodeLoad(Message, frozen=True):
    """One node of the party: what it computes of its tasks' fragments now, and how many it has computed.

    address: where a helper is connected from; empty for the node that acts. since: its connection, unix seconds.
    """

    node: NodeId
    slots: int
    running: tuple[NodeStep, ...] = ()
    computed: int = 0
    address: str = ""
    since: float = 0.0


class ChildStatus(Message, frozen=True):
    """A process of the node's own that computes for it; `seconds` since it began to work, or to rest."""

    kind: str
    pid: int
    busy: bool
    seconds: float
    memory_bytes: int


class Status(Message, frozen=True):
    """A node, as its operator sees it."""

    party: PartyId
    node: str
    software: str
    pid: int
    started_at: float
    listening: str
    consortium: str
    charter_version: int
    charter_digest: Digest
    charter_waiting: int  # the version that comes into force when the node is started again; 0 if there is none
    certificate_until: float
    certificate_renews: bool  # by itself; else the authority's key is kept elsewhere
    journal_entries: int
    journal_root: str
    datasets: int
    open_tasks: int
    memory_bytes: int
    links: tuple[LinkStatus, ...]
    helpers: tuple[NodeLoad, ...] = ()  # nodes of the party that stand by, and compute fragments meanwhile
    children: tuple[ChildStatus, ...] = ()


class Doctor(Message, frozen=True):
    """The parties to try; all others if none is named."""

    parties: tuple[PartyId, ...] = ()


class DoctorLine(Message, frozen=True):
    """One check: from whom to whom, what, whether it holds, and the mend."""

    sender: PartyId
    to: PartyId
    check: str
    ok: bool
    detail: str
    mend: str = ""


class Share(Message, frozen=True):
    """An amount to give, taken or that may be taken: fragments computing, bytes, tasks; None is no limit."""

    slots: int | None = None
    memory: int | None = None
    disk: int | None = None
    tasks: int | None = None


class PartyShare(Message, frozen=True):
    """The share that one party's tasks have, and the most that they may have."""

    party: PartyId
    used: Share
    cap: Share


class HeldTask(Message, frozen=True):
    """A task that holds memory and disk, or waits for them, `since` then.

    party: who asked it. lapses_at: when it lets go if no contract comes; None under a contract. seconds: how long it is
    expected to compute here. why: what it waits for.
    """

    task: TaskId
    party: PartyId
    priority: int
    memory: int
    disk: int
    since: float
    seconds: float
    lapses_at: float | None = None
    why: str = ""


class HeldStep(Message, frozen=True):
    """A fragment that has a slot, or waits for one, `since` then."""

    task: TaskId
    step: StepId
    party: PartyId
    priority: int
    since: float
    why: str = ""


class Top(Message, frozen=True):
    """A node's present work, the parties it works for, and the waiting, in the order in which they come next."""

    party: PartyId
    at: float
    capacity: Share
    used: Share
    parties: tuple[PartyShare, ...]
    running: tuple[HeldStep, ...]
    queued: tuple[HeldStep, ...]
    held: tuple[HeldTask, ...]
    waiting: tuple[HeldTask, ...]
    nodes: tuple[NodeLoad, ...] = ()  # of the party, the one that acts first
