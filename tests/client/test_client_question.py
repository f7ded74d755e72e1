# SPDX-License-Identifier: Apache-2.0
"""A question's life at the desk: what it asks, what it raises when there is no answer, whose profile it asks with."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec
import pyarrow as pa
import pytest

from junto.client.desk import Desk
from junto.client.profile import Profile, find_profile
from junto.client.question import Answer, Ended, Question, Watcher, answer, ending
from junto.errors import (
    Cancelled,
    DataChanged,
    DeadlineExceeded,
    FragmentFailed,
    InvalidInput,
    JuntoError,
    OutOfMemory,
    PeerFault,
    Refused,
    StorageFailed,
    Unavailable,
)
from junto.link.methods import Absent, Ask, Progress, ReceiptView, Which
from junto.plan.steps import Plan, Query
from junto.types import Digest, PartyId, StepId, TaskId, is_task_id

if TYPE_CHECKING:
    from junto.plan.explain import Explanation

BTS, DELTA = PartyId("bts"), PartyId("delta")
TASK = TaskId("01jtask")
DIGEST = Digest("sha256:" + "a" * 64)
RECEIPT = ReceiptView(TASK, "r1", "c1", DIGEST, DIGEST, 2, "some", (), 0.5, "bts")


def _progress(state: str, code: str = "", reason: str = "", receipt: ReceiptView | None = None) -> Progress:
    return Progress(
        TASK, "SELECT 1", BTS, "ana", "", (BTS, DELTA), state, 0.0, 60.0,
        code=code, party="delta", reason=reason, receipt=receipt,
    )  # fmt: skip


@dataclass
class _Desk:
    last: Progress
    interrupted: bool = False
    data: bytes | None = None
    did: list[str] = field(default_factory=list)

    def submit(
        self, plan: Plan, *, seconds: float, purpose: str, priority: int, absent: Absent, at_least: int, double: bool
    ) -> TaskId:
        rule = f" {absent} {at_least}" if absent else ""
        self.did.append(f"submit {seconds:g} {purpose} {priority}{rule}{' certified' if plan.steps else ''}")
        return TASK

    def certified(self, plan: Plan, n: int) -> Plan:
        return Plan(plan.question, plan.asker, (Query(StepId("q"), BTS, "SELECT 1", ()),) * n)

    def ended(self, task: TaskId, watch: Watcher | None, seconds: float | None) -> Ended:
        if self.interrupted:
            raise KeyboardInterrupt
        if watch is not None:
            watch(self.last)
        return Ended(self.last, self.data)

    def cancel(self, task: TaskId) -> None:
        self.did.append(f"cancel {task}")
        raise Unavailable("the node is gone, too")

    def result(self, task: TaskId) -> pa.Table:
        self.did.append("result")
        return pa.table({"n": [1, 2]})

    def explain(self, plan: Plan) -> "Explanation":
        raise NotImplementedError


def _question(desk: _Desk) -> Question:
    return Question("SELECT 1", Plan("SELECT 1", BTS, ()), "fleet-safety", desk)


def test_an_answer_is_a_table_with_its_receipt() -> None:
    desk = _Desk(_progress("done", receipt=RECEIPT))
    seen: list[Progress] = []
    answer: Answer = _question(desk).run(deadline="2m", priority=3, watch=seen.append)
    assert answer.table.column("n").to_pylist() == [1, 2]
    assert (answer.task, answer.seconds, answer.withheld) == (TASK, 0.5, True)
    assert seen == [desk.last]
    assert desk.did == ["submit 120 fleet-safety 3", "result"]


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema.with_metadata({"junto.salt": "x"})) as writer:
        writer.write_table(table)
    return cast(bytes, sink.getvalue().to_pybytes())


def test_an_answer_that_came_with_the_end_is_not_asked_for_again() -> None:
    table = pa.table({"n": [7]})
    desk = _Desk(_progress("done", receipt=RECEIPT), data=_stream(table))
    found = answer(desk, TASK, None)
    assert found.table.equals(table)
    assert found.table.schema.metadata is None
    assert desk.did == []


def test_a_question_says_what_becomes_of_it_when_somebody_stays_away() -> None:
    desk = _Desk(_progress("done", receipt=RECEIPT))
    _question(desk).run(absent="go-on", at_least=3)
    _question(desk).submit(absent="wait")
    assert desk.did == ["submit 60 fleet-safety 0 go-on 3", "result", "submit 60 fleet-safety 0 wait 0"]


@pytest.mark.parametrize("absent", ["", "wait", "fail"])
def test_how_many_must_be_left_goes_only_with_going_on(absent: Absent) -> None:
    desk = _Desk(_progress("done", receipt=RECEIPT))
    with pytest.raises(InvalidInput, match='add absent = "go-on"'):
        _question(desk).run(absent=absent, at_least=2)
    assert not desk.did


def test_a_certified_question_is_another_plan_for_the_same_purpose() -> None:
    desk = _Desk(_progress("done", receipt=RECEIPT))
    certified = _question(desk).certified(2)
    assert (certified.text, certified.purpose, len(certified.plan.steps)) == ("SELECT 1", "fleet-safety", 2)
    certified.submit()
    assert desk.did == ["submit 60 fleet-safety 0 certified"]


@pytest.mark.parametrize("deadline", ["soon", "0s", "-1s", "", "5 weeks", 0, -1.0, float("inf"), float("nan")])
def test_a_deadline_that_is_none_is_refused_before_anything_is_asked(deadline: str | float) -> None:
    desk = _Desk(_progress("done", receipt=RECEIPT))
    with pytest.raises(InvalidInput, match="deadline") as refusal:
        _question(desk).run(deadline=deadline)
    assert "\n" not in str(refusal.value)
    assert desk.did == []


ENDINGS: Sequence[tuple[Progress, type[JuntoError]]] = (
    (_progress("refused", "refused", "column tailnum: no rule"), Refused),
    (_progress("cancelled", "cancelled", "cancelled by ana at bts"), Cancelled),
    (_progress("expired", "deadline-exceeded", "waited for delta"), DeadlineExceeded),
    (_progress("failed", "unavailable", "delta cannot be reached"), Unavailable),
    (_progress("failed", "peer-fault", "other disclosures"), PeerFault),
    (_progress("failed", "data-changed", "flights.csv changed"), DataChanged),
    (_progress("failed", "out-of-memory", "more than 300 MB"), OutOfMemory),
    (_progress("failed", "fragment-failed", "binder error"), FragmentFailed),
    (_progress("failed", "storage-failed", "no space left"), StorageFailed),
    (_progress("failed", "internal", "a fault of this node"), JuntoError),
    (_progress("failed", "a code of tomorrow", "news"), PeerFault),
)


@pytest.mark.parametrize(("progress", "error"), ENDINGS, ids=lambda one: getattr(one, "code", None) or one.__name__)
def test_how_a_task_ended_is_the_error_it_raises_with_the_reason(progress: Progress, error: type[JuntoError]) -> None:
    with pytest.raises(error) as raised:
        _question(_Desk(progress)).run()
    assert type(raised.value) is error
    assert progress.reason in str(raised.value)


@pytest.mark.parametrize("state", ["done", "running", "proposed"])
def test_an_answer_that_was_not_to_be_had_in_time_is_unavailable_and_says_where_to_look(state: str) -> None:
    error = ending(_progress(state))
    assert isinstance(error, Unavailable)
    assert f"junto task show {TASK}" in str(error)
    assert state in str(error)


def test_an_interrupt_cancels_the_task_nobody_waits_for() -> None:
    desk = _Desk(_progress("running"), interrupted=True)
    with pytest.raises(KeyboardInterrupt):
        _question(desk).run()
    assert desk.did[-1] == f"cancel {TASK}"


# ── who asks ────────────────────────────────────────────────────────────────────────────────────────


def _home(folder: Path, *users: str) -> Path:
    (folder / "users").mkdir(parents=True)
    for user in users:
        (folder / "users" / user).mkdir()
        (folder / "users" / user / "profile.json").write_text("{}")
    return folder


def _says(error: pytest.ExceptionInfo[InvalidInput], *words: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    assert [word for word in words if word not in text] == []


def test_without_a_party_the_user_is_told_how_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as error:
        find_profile(environment={"HOME": str(tmp_path)})
    _says(error, ".junto", "--home", "--profile")


def test_of_several_parties_one_must_be_named(tmp_path: Path) -> None:
    for party in ("bts", "delta"):
        _home(tmp_path / ".junto" / party, "ana")
    with pytest.raises(InvalidInput) as error:
        find_profile(environment={"HOME": str(tmp_path)})
    _says(error, "bts, delta", "--home", "JUNTO_HOME")


@pytest.mark.parametrize(
    ("users", "named", "words"),
    [
        ((), None, ("no users", "junto user add")),
        (("ana",), "bob", ("no user 'bob'", "junto user add")),
        (("ana", "bob"), None, ("ana, bob", "--user")),
    ],
)
def test_of_several_users_one_must_be_named(
    tmp_path: Path, users: tuple[str, ...], named: str | None, words: tuple[str, ...]
) -> None:
    home = _home(tmp_path / "bts", *users)
    for given, environment in ((home, {}), (None, {"JUNTO_HOME": str(home)})):
        with pytest.raises(InvalidInput) as error:
            find_profile(given, named, environment=environment)
        _says(error, *words)


def test_a_profile_that_is_none_is_named_with_its_path(tmp_path: Path) -> None:
    home = _home(tmp_path / ".junto" / "bts", "ana")
    with pytest.raises(InvalidInput) as error:
        find_profile(environment={"HOME": str(tmp_path)})
    _says(error, str(home / "users" / "ana" / "profile.json"))
    with pytest.raises(InvalidInput) as error:
        find_profile(profile=tmp_path / "missing.json")
    _says(error, "missing.json", "cannot be read")


def _desk_whose_link_is_lost(monkeypatch: pytest.MonkeyPatch, times: int) -> tuple[Desk, list[Ask]]:
    heard: list[Ask] = []

    def request(method: str, body: bytes = b"", *, seconds: float = 0.0) -> bytes:
        heard.append(msgspec.json.decode(body, type=Ask))
        if len(heard) <= times:
            raise Unavailable("the link was lost before the answer came")
        return msgspec.json.encode(Which(heard[-1].task))

    desk = Desk(cast(Profile, None))
    monkeypatch.setattr(desk, "request", request)
    return desk, heard


def test_an_ask_whose_answer_was_lost_is_repeated_under_the_same_id(monkeypatch: pytest.MonkeyPatch) -> None:
    desk, heard = _desk_whose_link_is_lost(monkeypatch, 1)
    task = desk.submit(Plan("SELECT 1", BTS, ()), seconds=60.0, purpose="", priority=0)
    assert is_task_id(task)
    assert [ask.task for ask in heard] == [task, task]


def test_a_node_that_stays_away_is_named_when_the_time_for_the_answer_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    desk, heard = _desk_whose_link_is_lost(monkeypatch, 9)
    with pytest.raises(Unavailable, match="link was lost"):
        desk.submit(Plan("SELECT 1", BTS, ()), seconds=0.01, purpose="", priority=0)
    assert len(heard) == 1


def test_who_waits_for_a_submitted_task_and_is_interrupted_leaves_it_running() -> None:
    desk = _Desk(_progress("running"), interrupted=True)
    with pytest.raises(KeyboardInterrupt):
        answer(desk, TASK, None)
    assert desk.did == []
