# SPDX-License-Identifier: Apache-2.0
"""One side of a link: events in, bytes and events out; no socket, no clock."""

from typing import get_args

import msgspec
import pytest

from junto.errors import InvalidInput, InvalidTransition, Unavailable
from junto.link import events, frames, moves
from junto.link.frames import (
    Call,
    Cancel,
    Drain,
    Error,
    Header,
    Hello,
    Notice,
    Ping,
    Pong,
    Reply,
    StreamCredit,
    StreamData,
    StreamEnd,
    StreamOpen,
    encode,
)
from junto.link.session import Session
from junto.link.settings import LinkSettings

DELTA, UNITED = "spiffe://skies/delta/main", "spiffe://skies/united/main"
WINDOW = 4 * 1024 * 1024
SMALL = LinkSettings(calls=3, streams=2, call_bytes=1000, window_bytes=WINDOW)


def hello(name: str, **changes: object) -> Hello:
    fields: dict[str, object] = {
        "lowest": 1,
        "highest": 1,
        "software": "0.1.0",
        "consortium": "skies",
        "charter_version": 3,
        "charter_digest": "sha256:" + "ab" * 32,
        "name": name,
        "instance": "first",
        "unix_seconds": 0.0,
        "calls": 3,
        "streams": 2,
    }
    return Hello(**(fields | changes))  # type: ignore[arg-type]  # the test chooses which field is odd


def session(settings: LinkSettings = SMALL) -> Session:
    """Delta's side, its Hello sent, united's not yet here."""
    one = Session(hello(DELTA), UNITED, settings, 0.0)
    one.outgoing()
    return one


def opened(settings: LinkSettings = SMALL) -> Session:
    one = session(settings)
    assert one.receive(encode(hello(UNITED)), 0.0) == [events.HelloArrived(hello(UNITED))]
    return one


def sent(one: Session) -> list[tuple[Header, bytes]]:
    """What the session wants sent, as frames."""
    decoder, found = frames.Decoder(), []
    for piece in one.outgoing():
        data = piece
        while data:
            space = decoder.space()
            taken = data[: len(space)]
            space[: len(taken)] = taken
            data = data[len(taken) :]
            found += list(decoder.received(len(taken)))
    return found


def test_each_side_says_hello_first() -> None:
    one = Session(hello(DELTA), UNITED, SMALL, 0.0)
    assert sent(one) == [(hello(DELTA), b"")]
    assert one.state == "greeting"


def test_a_call_is_answered() -> None:
    delta, united = opened(), opened()
    call_id = delta.call("ask", b"question", 30.0, 10.0, "00-trace")
    (frame,) = sent(delta)
    assert frame == (Call(1, "ask", 20_000, "00-trace"), b"question")
    (arrived,) = united.receive(encode(*frame), 100.0)
    assert arrived == events.CallArrived(1, "ask", b"question", 120.0, "00-trace")
    united.reply(1, b"answer")
    (reply,) = sent(united)
    assert delta.receive(encode(*reply), 11.0) == [events.ReplyArrived(call_id, b"answer")]
    assert delta.idle
    assert united.idle


def test_an_error_ends_a_call() -> None:
    delta = opened()
    delta.call("ask", b"", 30.0, 0.0)
    assert delta.receive(encode(Error(1, "refused", "no rule")), 0.0) == [events.ErrorArrived(1, "refused", "no rule")]


@pytest.mark.parametrize("last", [Reply(1), Error(1, "cancelled", "")])
def test_an_answer_that_crosses_a_cancel_is_dropped(last: Header) -> None:
    delta = opened()
    delta.call("ask", b"", 30.0, 0.0)
    delta.cancel(1)
    assert [header for header, _ in sent(delta)] == [Call(1, "ask", 30_000, ""), Cancel(1)]
    assert not delta.idle
    assert delta.receive(encode(last), 0.0) == []
    assert delta.idle


def test_a_cancelled_call_counts_until_the_peer_ended_it() -> None:
    delta = opened()
    for _ in range(3):
        delta.cancel(delta.call("ask", b"", 30.0, 0.0))
    assert not delta.has_room
    with pytest.raises(Unavailable, match="serves no more calls"):
        delta.call("ask", b"", 30.0, 0.0)
    delta.receive(encode(Error(1, "cancelled", "")), 0.0)
    assert delta.has_room


def test_a_cancel_stops_the_work_and_is_confirmed() -> None:
    delta = opened()
    delta.receive(encode(Call(1, "ask", 5000, "")), 0.0)
    assert delta.receive(encode(Cancel(1)), 1.0) == [events.Dropped(1, expired=False)]
    assert sent(delta) == [(Error(1, "cancelled", "cancelled by the caller"), b"")]
    assert not delta.serves(1)


@pytest.mark.parametrize("late", [Cancel(1), StreamCredit(1, 5)])
def test_a_withdrawal_that_crosses_our_answer_is_ignored(late: Header) -> None:
    delta = opened()
    delta.receive(encode(Call(1, "ask", 5000, "")), 0.0)
    delta.reply(1, b"")
    assert delta.receive(encode(late), 0.0) == []
    assert delta.state == "open"


def test_a_call_past_its_deadline_is_given_up_on_both_sides() -> None:
    delta = opened()
    delta.tick(0.0)
    delta.call("ask", b"", 3.0, 0.0)
    delta.receive(encode(Call(1, "answer", 2000, "")), 0.0)
    sent(delta)
    assert delta.wake_at == 2.0
    assert delta.tick(2.0) == [events.Dropped(1, expired=True)]
    assert sent(delta)[0][0] == Error(1, "deadline-exceeded", "the time that the caller gave has passed")
    assert delta.wake_at == 3.0
    assert delta.tick(3.0) == [events.WaitExpired(1)]
    assert sent(delta) == [(Cancel(1), b"")]


def test_a_call_without_time_is_the_callers_mistake() -> None:
    with pytest.raises(InvalidInput, match="time limit above zero"):
        opened().call("ask", b"", 5.0, 5.0)


def test_a_large_payload_is_refused_and_uses_no_number() -> None:
    delta = opened()
    with pytest.raises(InvalidInput, match="stream it"):
        delta.call("ask", bytes(frames.PAYLOAD_BYTES + 1), 5.0, 0.0)
    assert delta.idle
    assert delta.call("ask", b"", 5.0, 0.0) == 1


def test_a_large_reply_can_still_be_ended_with_an_error() -> None:
    delta = opened()
    delta.receive(encode(Call(1, "ask", 5000, "")), 0.0)
    with pytest.raises(InvalidInput):
        delta.reply(1, bytes(frames.PAYLOAD_BYTES + 1))
    delta.fail(1, "invalid-input", "stream it")
    assert sent(delta) == [(Error(1, "invalid-input", "stream it"), b"")]


def test_a_stream_runs_within_its_credit() -> None:
    delta = opened()
    (asked,) = delta.receive(encode(StreamOpen(1, "rows", 5000, WINDOW, "")), 0.0)
    assert asked == events.StreamAsked(1, "rows", b"", 5.0, "")
    delta.send(1, bytes(1_000_000))
    assert delta.credit(1) == WINDOW - 1_000_000 - 2 * 64
    with pytest.raises(InvalidTransition, match="credit"):
        delta.send(1, bytes(WINDOW))
    assert delta.receive(encode(StreamCredit(1, 500_000)), 0.0) == [events.CreditArrived(1)]
    assert delta.credit(1) == WINDOW - 500_000 - 2 * 64
    delta.end(1)
    assert [type(header) for header, _ in sent(delta)] == [StreamData, StreamEnd]


def test_a_reader_gives_credit_back_a_quarter_window_at_a_time() -> None:
    delta = opened()
    delta.open_stream("rows", b"", 30.0, 0.0)
    sent(delta)
    delta.receive(encode(StreamData(1), bytes(1024 * 1024)), 0.0)
    delta.grant(1, WINDOW // 4 - 65 - 64)
    assert sent(delta) == []
    delta.grant(1, 1)
    assert sent(delta) == [(StreamCredit(1, WINDOW // 4), b"")]


def test_tiny_pieces_use_credit_for_the_memory_they_take() -> None:
    delta = opened(LinkSettings(window_bytes=2 * 1024 * 1024))
    delta.open_stream("rows", b"", 30.0, 0.0)
    many = encode(StreamData(1)) * (2 * 1024 * 1024 // 64)
    assert len(delta.receive(many, 0.0)) == 2 * 1024 * 1024 // 64
    delta.receive(encode(StreamData(1)), 0.0)
    assert delta.closed


def test_a_stream_beyond_its_credit_is_the_peers_fault() -> None:
    delta = opened()
    delta.open_stream("rows", b"", 30.0, 0.0)
    piece = encode(StreamData(1), bytes(1024 * 1024))
    assert len(delta.receive(piece * 3, 0.0)) == 3
    (last,) = delta.receive(piece, 0.0)
    assert last == events.LinkEnded("peer-fault", "stream 1 sent 256 bytes beyond its credit", by_peer=False)


@pytest.mark.parametrize("kind", ["call", "stream"])
def test_more_at_once_than_we_serve_is_the_peers_fault(kind: str) -> None:
    delta = opened()
    for number in range(1, 5):
        frame: Header = Call(number, "ask", 5000, "")
        if kind == "stream":
            frame = StreamOpen(number, "ask", 5000, WINDOW, "")
        last = delta.receive(encode(frame), 0.0)
        if delta.closed:
            break
    assert last[-1] == events.LinkEnded(
        "peer-fault", "more than 3 calls at once" if kind == "call" else "more than 2 streams at once", by_peer=False
    )


def test_calls_that_hold_too_many_bytes_are_told_to_retry() -> None:
    delta = opened()
    assert delta.receive(encode(Call(1, "ask", 5000, ""), bytes(900)), 0.0)
    assert delta.receive(encode(Call(2, "ask", 5000, ""), bytes(200)), 0.0) == []
    assert sent(delta)[0][0] == Error(2, "unavailable", "busy with 1,000 bytes of calls: retry")
    delta.reply(1, b"")
    assert delta.receive(encode(Call(3, "ask", 5000, ""), bytes(200)), 0.0)


def test_a_user_and_its_own_node_work_together_under_different_charters() -> None:
    newer = {"charter_version": 4, "charter_digest": "sha256:" + "cd" * 32}
    user = DELTA.rpartition("/")[0] + "/user/ann"
    at_home = Session(hello(DELTA), user, SMALL, 0.0)
    assert at_home.receive(encode(hello(user, **newer)), 0.0) == [events.HelloArrived(hello(user, **newer))]
    sibling = DELTA.rpartition("/")[0] + "/second"  # a node of the same party is held to the same charter
    for other in (sibling, UNITED, UNITED.rpartition("/")[0] + "/user/ann"):
        refusing = Session(hello(DELTA), other, SMALL, 0.0)
        (ended,) = refusing.receive(encode(hello(other, **newer)), 0.0)
        assert isinstance(ended, events.LinkEnded)
        assert "charter differs" in str(ended)
    elsewhere = Session(hello(DELTA), user, SMALL, 0.0)
    (ended,) = elsewhere.receive(encode(hello(user, consortium="seas")), 0.0)
    assert isinstance(ended, events.LinkEnded)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"lowest": 2, "highest": 3, "software": "9.0"}, "protocol differs: here version 1 (Junto 0.1.0), "
         "at united/main versions 2 to 3 (Junto 9.0): upgrade the older one"),
        ({"consortium": "seas"}, "consortium differs: here 'skies', at spiffe://skies/united/main 'seas'"),
        ({"charter_version": 2, "charter_digest": "sha256:" + "cd" * 32},
         "charter differs: here version 3 sha256:abababababab…, at united/main version 2 sha256:cdcdcdcdcdcd…: "
         "give the newer to them"),
        ({"charter_digest": "sha256:" + "cd" * 32},
         "charter differs: here version 3 sha256:abababababab…, at united/main version 3 sha256:cdcdcdcdcdcd…: "
         "the same version with other content"),
    ],
)  # fmt: skip
def test_hellos_that_differ_end_the_link_saying_what_differs(changes: dict[str, object], says: str) -> None:
    delta = session()
    assert delta.receive(encode(hello(UNITED, **changes)), 0.0) == [events.LinkEnded("refused", says, by_peer=False)]
    assert sent(delta) == [(Error(0, "refused", says), b"")]


def test_a_later_hello_may_carry_more_fields() -> None:
    fields = [*msgspec.msgpack.decode(msgspec.msgpack.encode(hello(UNITED))), "something new"]
    head = msgspec.msgpack.encode(fields)
    data = (len(head) + 2).to_bytes(4, "big") + len(head).to_bytes(2, "big") + head
    assert session().receive(data, 0.0) == [events.HelloArrived(hello(UNITED))]


def test_a_hello_in_another_name_than_the_certificates_is_the_peers_fault() -> None:
    (end,) = session().receive(encode(hello("spiffe://skies/jetblue/main")), 0.0)
    assert end == events.LinkEnded(
        "peer-fault", f"Hello in another name than the certificate's, {UNITED}", by_peer=False
    )


def test_the_peers_error_ends_the_link() -> None:
    delta = opened()
    assert delta.receive(encode(Error(0, "unavailable", "stopping")), 0.0) == [
        events.LinkEnded("unavailable", "stopping", by_peer=True)
    ]
    assert delta.outgoing() == []


def test_no_hello_in_time_ends_the_link_however_slowly_bytes_come() -> None:
    delta = session()
    data = encode(hello(UNITED))
    for second in range(10):
        assert delta.receive(data[second : second + 1], float(second)) == []
        assert delta.tick(float(second)) == []
    (end,) = delta.tick(10.0)
    assert end == events.LinkEnded("unavailable", "no Hello within 10 s: not a Junto node, or stuck", by_peer=False)


def test_a_large_frame_before_hello_is_the_peers_fault() -> None:
    (end,) = session().receive(encode(Notice("m", ""), bytes(20_000)), 0.0)
    assert end == events.LinkEnded("peer-fault", "a frame claims 20,011 bytes; the limit is 16,384", by_peer=False)


def test_pings_keep_a_quiet_link_and_measure_it() -> None:
    delta = opened()
    assert delta.wake_at == 0.0
    delta.tick(0.0)
    assert sent(delta) == [(Ping(1), b"")]
    assert delta.receive(encode(Pong(1)), 0.25) == [events.PongArrived(0.25)]
    assert delta.round_trip_seconds == 0.25
    assert delta.wake_at == 5.0
    delta.tick(5.0)
    assert sent(delta) == [(Ping(2), b"")]


def test_a_ping_is_answered() -> None:
    delta = opened()
    assert delta.receive(encode(Ping(9)), 0.0) == []
    assert sent(delta) == [(Pong(9), b"")]


def test_a_silent_peer_is_cut() -> None:
    delta = opened()
    for second in (0.0, 5.0, 10.0):
        assert delta.tick(second) == []
    assert delta.wake_at == 15.0
    assert delta.tick(15.0) == [events.LinkEnded("unavailable", "nothing heard for 15.0 s", by_peer=False)]
    assert delta.wake_at == float("inf")


def test_a_peer_is_not_blamed_for_our_standing_still() -> None:
    delta = opened()
    delta.tick(0.0)
    assert delta.tick(300.0) == []
    assert delta.state == "open"
    assert [delta.tick(second) for second in (305.0, 310.0)] == [[], []]
    assert [type(event) for event in delta.tick(315.0)] == [events.LinkEnded]


def test_after_drain_nothing_is_asked_and_answers_still_come() -> None:
    delta = opened()
    delta.call("ask", b"", 30.0, 0.0)
    delta.drain()
    with pytest.raises(Unavailable, match="being closed"):
        delta.call("ask", b"", 30.0, 0.0)
    assert delta.receive(encode(Call(1, "ask", 5000, "")), 0.0)
    assert delta.receive(encode(Reply(1), b"late"), 0.0) == [events.ReplyArrived(1, b"late")]
    assert delta.receive(encode(Drain()), 0.0) == [events.PeerDrains()]
    (end,) = delta.receive(encode(Call(2, "ask", 5000, "")), 0.0)
    assert end == events.LinkEnded("peer-fault", "Call after Drain", by_peer=False)


EXAMPLES: dict[type[Header], Header] = {
    Hello: hello(UNITED),
    Call: Call(1, "ask", 5000, ""),
    Reply: Reply(1),
    Error: Error(1, "refused", ""),
    Notice: Notice("tell", ""),
    StreamOpen: StreamOpen(1, "rows", 5000, WINDOW, ""),
    StreamData: StreamData(1),
    StreamCredit: StreamCredit(1, 5),
    StreamEnd: StreamEnd(1),
    Cancel: Cancel(1),
    Ping: Ping(1),
    Pong: Pong(1),
    Drain: Drain(),
}


def asked(state: moves.AskedState) -> Session:
    """A session whose exchange 1, asked by us, is in this state."""
    delta = opened()
    if state in ("waiting", "unwanted"):
        delta.call("ask", b"", 30.0, 0.0)
    elif state in ("reading", "stopped"):
        delta.open_stream("rows", b"", 30.0, 0.0)
    if state in ("unwanted", "stopped"):
        delta.cancel(1)
    return delta


def served(state: moves.ServedState) -> Session:
    """A session whose exchange 1, asked by the peer, is in this state."""
    delta = opened()
    if state in ("answering", "gone"):
        delta.receive(encode(EXAMPLES[Call]), 0.0)
    if state == "sending":
        delta.receive(encode(EXAMPLES[StreamOpen]), 0.0)
    if state == "gone":
        delta.reply(1, b"")
    return delta


@pytest.mark.parametrize("state", get_args(moves.AskedState))
@pytest.mark.parametrize("kind", [Reply, Error, StreamData, StreamEnd])
def test_an_answer_is_taken_exactly_where_the_table_lists_it(state: moves.AskedState, kind: type[Header]) -> None:
    delta = asked(state)
    delta.receive(encode(EXAMPLES[kind]), 0.0)
    assert delta.closed == ((state, kind) not in moves.ASKED_MOVES)


@pytest.mark.parametrize("state", get_args(moves.ServedState))
@pytest.mark.parametrize("kind", [Call, StreamOpen, StreamCredit, Cancel])
def test_a_question_is_taken_exactly_where_the_table_lists_it(state: moves.ServedState, kind: type[Header]) -> None:
    delta = served(state)
    delta.receive(encode(EXAMPLES[kind]), 0.0)
    assert delta.closed == ((state, kind) not in moves.SERVED_MOVES)


@pytest.mark.parametrize("kind", frames.KINDS)
def test_before_hello_only_hello_and_error_are_taken(kind: type[Header]) -> None:
    delta = session()
    delta.receive(encode(EXAMPLES[kind]), 0.0)
    assert (delta.state == "open") == (("greeting", kind) in moves.LINK_MOVES and kind is Hello)


def test_a_second_hello_is_the_peers_fault() -> None:
    delta = opened()
    (end,) = delta.receive(encode(hello(UNITED)), 0.0)
    assert end == events.LinkEnded("peer-fault", "Hello twice", by_peer=False)


@pytest.mark.parametrize("kind", [Hello, Error, StreamCredit, StreamEnd, Cancel, Ping, Pong, Drain])
def test_a_payload_where_none_belongs_is_the_peers_fault(kind: type[Header]) -> None:
    delta = opened() if kind is not Hello else session()
    delta.receive(encode(EXAMPLES[kind], b"?"), 0.0)
    assert delta.closed


def test_nothing_is_read_after_the_end() -> None:
    delta = opened()
    events_ = delta.receive(encode(Error(0, "unavailable", "")) + encode(Notice("m", "")), 0.0)
    assert [type(event) for event in events_] == [events.LinkEnded]
    assert delta.receive(encode(Notice("m", "")), 0.0) == []


@pytest.mark.parametrize(
    "wish",
    [
        lambda one: one.reply(1, b""),
        lambda one: one.fail(1, "internal", ""),
        lambda one: one.send(1, b""),
        lambda one: one.end(1),
        lambda one: one.credit(1),
    ],
)
def test_answering_what_nobody_asked_is_our_bug(wish: object) -> None:
    with pytest.raises(InvalidTransition):
        wish(opened())  # type: ignore[operator]  # each is a function of a session
