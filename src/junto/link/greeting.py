# SPDX-License-Identifier: Apache-2.0
"""What two Hellos must have in common, and what is said when they differ."""

from junto.link.frames import Hello

LOWEST = 1
HIGHEST = 1
SHORT_DIGEST = len("sha256:") + 12


def difference(here: Hello, there: Hello) -> str:
    """What keeps two sides from working together, in one line; empty when nothing does.

    A side that holds no charter yet (version 0, as a user's desk does) is not compared by charter.
    """
    if here.lowest > there.highest or there.lowest > here.highest:
        return (
            f"protocol differs: here {_range(here)} (Junto {here.software}), "
            f"at {_who(there)} {_range(there)} (Junto {there.software}): upgrade the older one"
        )
    if here.consortium != there.consortium:
        return f"consortium differs: here {here.consortium!r}, at {_who(there)} {there.consortium!r}"
    if not here.charter_version or not there.charter_version:
        return ""
    if here.charter_digest != there.charter_digest:
        older = "the same version with other content"
        if here.charter_version != there.charter_version:
            older = "give the newer to " + ("us" if here.charter_version < there.charter_version else "them")
        return f"charter differs: here {_charter(here)}, at {_who(there)} {_charter(there)}: {older}"
    return ""


def _who(hello: Hello) -> str:
    return hello.name.removeprefix(f"spiffe://{hello.consortium}/")


def _range(hello: Hello) -> str:
    low, high = hello.lowest, hello.highest
    return f"version {low}" if low == high else f"versions {low} to {high}"


def _charter(hello: Hello) -> str:
    return f"version {hello.charter_version} {hello.charter_digest[:SHORT_DIGEST]}…"
