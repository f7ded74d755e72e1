# SPDX-License-Identifier: Apache-2.0
"""Whatever arrives, in whatever state: a session ends in order, or goes on; it never raises, never grows."""

from hypothesis import given, settings
from hypothesis import strategies as st
from link_strategies import headers, hellos

from junto.errors import JuntoError
from junto.link import frames
from junto.link.events import LinkEnded
from junto.link.frames import Header, Hello, encode
from junto.link.session import Session
from junto.link.settings import LinkSettings

LIMITS = LinkSettings(calls=3, streams=2, call_bytes=2000)
FUZZ = settings(derandomize=True, max_examples=200, deadline=None)
HERE = Hello(1, 1, "0.1.0", "skies", 1, "sha256:aa", "spiffe://skies/delta/main", "one", 0.0, 4, 4)
THERE = Hello(1, 1, "0.1.0", "skies", 1, "sha256:aa", "spiffe://skies/united/main", "two", 0.0, 4, 4)

wishes = st.tuples(
    st.sampled_from(
        ["call", "stream", "notify", "cancel", "grant", "ping", "drain", "reply", "fail", "send", "end", "tick"]
    ),
    st.integers(1, 6),
)
steps = st.lists(st.one_of(st.tuples(headers, st.binary(max_size=50)), wishes), max_size=40)


def wish(session: Session, what: str, number: int, now: float) -> None:
    match what:
        case "call":
            session.call("m", b"", now + number, now)
        case "stream":
            session.open_stream("m", b"", now + number, now)
        case "notify":
            session.notify("m", b"")
        case "cancel":
            session.cancel(number)
        case "grant":
            session.grant(number, number * 1000)
        case "ping":
            session.ping(now)
        case "drain":
            session.drain()
        case "reply":
            session.reply(number, b"")
        case "fail":
            session.fail(number, "internal", "")
        case "send":
            session.send(number, b"piece")
        case "end":
            session.end(number)
        case _:
            session.tick(now)


@given(steps)
@FUZZ
def test_any_frame_in_any_state_ends_the_link_or_goes_on(
    played: list[tuple[Header, bytes] | tuple[str, int]],
) -> None:
    session = Session(HERE, THERE.name, LIMITS, 0.0)
    session.receive(encode(THERE), 0.0)
    ended = 0
    for second, (first, second_part) in enumerate(played):
        now = float(second)
        if isinstance(first, str):
            assert isinstance(second_part, int)
            try:
                wish(session, first, second_part, now)
            except JuntoError:
                continue
        else:
            assert isinstance(second_part, bytes)
            found = session.receive(encode(first, second_part), now)
            ended += sum(isinstance(event, LinkEnded) for event in found)
        assert ended <= 1
        assert session.closed or not ended
    session.outgoing()


@given(hellos, st.binary(max_size=400))
@FUZZ
def test_random_bytes_after_any_hello_never_raise(hello: Hello, data: bytes) -> None:
    session = Session(HERE, THERE.name, LIMITS, 0.0)
    session.receive(encode(hello) + data, 0.0)


@given(st.lists(st.tuples(headers, st.binary(max_size=50)), max_size=12), st.data())
@FUZZ
def test_the_cuts_in_the_bytes_make_no_difference(played: list[tuple[Header, bytes]], data: st.DataObject) -> None:
    stream = encode(THERE) + b"".join(encode(header, payload) for header, payload in played)
    whole = Session(HERE, THERE.name, LIMITS, 0.0)
    expected = whole.receive(stream, 0.0)
    cut = Session(HERE, THERE.name, LIMITS, 0.0)
    found = []
    while stream:
        at = data.draw(st.integers(1, len(stream)))
        found += cut.receive(stream[:at], 0.0)
        stream = stream[at:]
    assert found == expected
    assert cut.outgoing() == whole.outgoing()
    assert cut.state == whole.state


def test_a_peer_that_sends_for_ever_fills_nothing() -> None:
    session = Session(HERE, THERE.name, LIMITS, 0.0)
    session.receive(encode(THERE), 0.0)
    session.outgoing()
    for number in range(1, 2000):
        session.receive(encode(frames.Call(number, "m", 1000, ""), bytes(2500)), 0.0)
    assert session.idle
    assert not session.closed
    assert sum(map(len, session.outgoing())) < 2000 * 80
