# SPDX-License-Identifier: Apache-2.0
"""Names and addresses have one spelling each."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from junto.errors import InvalidInput
from junto.trust.names import NAME_CHARACTERS, Name, check_name, parse_address, parse_name
from junto.types import NodeId, PartyId

LABELS = st.from_regex(r"[a-z0-9]{1,8}(-[a-z0-9]{1,8}){0,3}", fullmatch=True)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(LABELS, LABELS, LABELS.filter(lambda text: text != "user"), st.booleans())
def test_a_name_comes_back_from_its_uri(consortium: str, party: str, last: str, is_user: bool) -> None:
    name = (
        Name(consortium, PartyId(party), user=last) if is_user else Name(consortium, PartyId(party), node=NodeId(last))
    )
    assert parse_name(name.uri) == name


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.text(max_size=60) | st.from_regex(r"spiffe://[a-z/._~%A-Z0-9-]{0,40}", fullmatch=True))
def test_a_uri_that_reads_as_a_name_is_spelled_as_that_name(uri: str) -> None:
    try:
        name = parse_name(uri)
    except InvalidInput:
        return
    assert name.uri == uri


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "united/node-1",
        "https://sky/united/node-1",
        "SPIFFE://sky/united/node-1",
        "spiffe://sky/united",
        "spiffe://sky/united/",
        "spiffe://sky//node-1",
        "spiffe://sky/united/user",
        "spiffe://sky/united/user/",
        "spiffe://sky/united/user/ann/x",
        "spiffe://sky/united/node-1/",
        "spiffe://sky/united/Node-1",
        "spiffe://sky/united/node-1\n",
        "spiffe://sky/united/n\N{CYRILLIC SMALL LETTER O}de",
        "spiffe://sky/united/node%2d1",
        "spiffe://sky:443/united/node-1",
        "spiffe://sky/united/" + "n" * 5000,
    ],
)
def test_other_spellings_of_a_uri_are_refused(uri: str) -> None:
    with pytest.raises(InvalidInput):
        parse_name(uri)


@pytest.mark.parametrize("text", ["", "-a", "a-", "a--b", "A", "a_b", "a.b", "a b", "é", "n" * (NAME_CHARACTERS + 1)])
def test_a_party_name_that_would_not_survive_everywhere_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="party name"):
        check_name("party", text)


def test_a_node_may_not_be_called_user_for_its_names_would_read_as_users() -> None:
    with pytest.raises(InvalidInput, match="reserved"):
        Name("sky", PartyId("united"), node=NodeId("user"))


def test_a_name_is_a_nodes_or_a_users_never_both_nor_neither() -> None:
    for node, user in (("", ""), ("node-1", "ann")):
        with pytest.raises(InvalidInput, match="either"):
            Name("sky", PartyId("united"), node=NodeId(node), user=user)


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("node.example.org:7301", "node.example.org:7301"),
        ("Node.Example.org", "node.example.org:7300"),
        ("10.0.0.7:80", "10.0.0.7:80"),
        ("[2001:DB8::1]:7300", "[2001:db8::1]:7300"),
        ("[::]", "[::]:7300"),
        ("my_service:7300", "my_service:7300"),
    ],
)
def test_an_address_is_spelled_one_way(text: str, spelled: str) -> None:
    assert str(parse_address(text)) == spelled
    assert str(parse_address(spelled)) == spelled


@pytest.mark.parametrize(
    "text",
    ["", ":7300", "a:b", "a:0", "a:65536", "a:7300:1", "::1:7300", "[::g]:1", "a b:1", "10.0.0.300:1", "a..b:1",
     "-a:1", "a-:1", "http://a:1", "a:7300\n", "a:७३", "x" * 300],
)  # fmt: skip
def test_an_address_that_cannot_be_dialled_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InvalidInput, match="address") as raised:
        parse_address(text)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "expected"), [("0.0.0.0:1", True), ("[::]:1", True), ("10.0.0.1:1", False), ("a:1", False)]
)
def test_an_address_of_every_interface_is_known_as_such(text: str, expected: bool) -> None:
    assert parse_address(text).is_wildcard is expected
