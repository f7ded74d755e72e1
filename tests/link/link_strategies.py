# SPDX-License-Identifier: Apache-2.0
"""Hypothesis strategies for what may be on the wire."""

from hypothesis import strategies as st

from junto.link.frames import (
    SMALLEST_WINDOW_BYTES,
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
)

ids = st.integers(1, 6)
methods = st.text(min_size=1, max_size=20)
milliseconds = st.integers(1, 100_000)
traces = st.text(max_size=60)

hellos: st.SearchStrategy[Hello] = st.builds(
    Hello,
    lowest=st.just(1),
    highest=st.integers(1, 3),
    software=st.just("0.1.0"),
    consortium=st.sampled_from(["skies", "seas"]),
    charter_version=st.integers(0, 2),
    charter_digest=st.sampled_from(["sha256:aa", "sha256:bb"]),
    name=st.sampled_from(["spiffe://skies/delta/main", "spiffe://skies/united/main"]),
    instance=st.text(max_size=8),
    unix_seconds=st.floats(0, 2e9),
    calls=st.integers(1, 9),
    streams=st.integers(1, 9),
)
headers: st.SearchStrategy[Header] = st.one_of(
    hellos,
    st.builds(Call, ids, methods, milliseconds, traces),
    st.builds(Reply, ids),
    st.builds(Error, st.integers(0, 6), st.sampled_from(["refused", "internal", "?"]), st.text(max_size=40)),
    st.builds(Notice, methods, traces),
    st.builds(StreamOpen, ids, methods, milliseconds, st.integers(SMALLEST_WINDOW_BYTES, 2**40), traces),
    st.builds(StreamData, ids),
    st.builds(StreamCredit, ids, st.integers(1, 2**40)),
    st.builds(StreamEnd, ids),
    st.builds(Cancel, ids),
    st.builds(Ping, st.integers(0, 9)),
    st.builds(Pong, st.integers(0, 9)),
    st.builds(Drain),
)
