# SPDX-License-Identifier: Apache-2.0
"""The agreement that two Hellos must show, and the message when they differ."""

from junto.link.frames import Hello
from junto.trust.names import parse_name

LOWEST = 2
HIGHEST = 2
"""The versions of the wire that this Junto speaks. Version 1 had no runs of joint steps, absence and reservations."""
SHORT_DIGEST = len("sha256:") + 12


def difference(here: Hello, there: Hello) -> str:
    """The difference that keeps two sides from working together, in one line; empty when there is none.

    A user and the node of its own party work together under different charters: a party's own commands do not fail
    while its node has still to be started under a new one.
    """
    differs = protocol_difference(here, there)
    if differs or (here.consortium == there.consortium and _at_home(here, there)):
        return differs
    return charter_difference(here, there)


def protocol_difference(here: Hello, there: Hello) -> str:
    """The difference between two sides' versions of the wire if none is common; empty when one is."""
    if here.lowest <= there.highest and there.lowest <= here.highest:
        return ""
    return (
        f"protocol differs: here {_range(here)} (Junto {here.software}), "
        f"at {_who(there)} {_range(there)} (Junto {there.software}): upgrade the older one"
    )


def charter_difference(here: Hello, there: Hello) -> str:
    """The difference between two charters; empty if there is none. Version 0 is no charter, and differs from none."""
    if here.consortium != there.consortium:
        return f"consortium differs: here {here.consortium!r}, at {_who(there)} {there.consortium!r}"
    if not here.charter_version or not there.charter_version or here.charter_digest == there.charter_digest:
        return ""
    mend = "the same version with other content"
    if here.charter_version != there.charter_version:
        mend = "give the newer to " + ("us" if here.charter_version < there.charter_version else "them")
    return f"charter differs: here {_charter(here)}, at {_who(there)} {_charter(there)}: {mend}"


def _at_home(here: Hello, there: Hello) -> bool:
    one, other = parse_name(here.name), parse_name(there.name)
    return one.party == other.party and bool(one.user) != bool(other.user)


def _who(hello: Hello) -> str:
    return hello.name.removeprefix(f"spiffe://{hello.consortium}/")


def _range(hello: Hello) -> str:
    low, high = hello.lowest, hello.highest
    return f"version {low}" if low == high else f"versions {low} to {high}"


def _charter(hello: Hello) -> str:
    return f"version {hello.charter_version} {hello.charter_digest[:SHORT_DIGEST]}…"
