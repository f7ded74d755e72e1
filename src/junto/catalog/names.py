# SPDX-License-Identifier: Apache-2.0
"""Names as the engine compares them, and the nearest name to one that does not exist, for messages."""

import difflib
from collections.abc import Iterable
from string import ascii_lowercase, ascii_uppercase

_FOLD = str.maketrans(ascii_uppercase, ascii_lowercase)


def fold(name: str) -> str:
    """A name as DuckDB compares it: without the case of ASCII letters."""
    return name.translate(_FOLD)


def nearest(name: str, among: Iterable[str], most: int = 3) -> tuple[str, ...]:
    """Up to `most` of the names that resemble `name`, the nearest first; case does not count."""
    spelled: dict[str, str] = {}
    for candidate in among:
        spelled.setdefault(candidate.casefold(), candidate)
    return tuple(spelled[c] for c in difflib.get_close_matches(name.casefold(), spelled, n=most, cutoff=0.6))


def meant(name: str, among: Iterable[str]) -> str:
    """A message's ending: `did you mean 'dep_delay'?`, or else the first few names there are."""
    names = list(among)
    close = nearest(name, names)
    if close:
        return f"did you mean {' or '.join(repr(c) for c in close)}?"
    if not names:
        return "there are none"
    shown = ", ".join(sorted(names)[:8])
    return f"there {'is' if len(names) == 1 else 'are'} {shown}" + (
        f" and {len(names) - 8} more" if len(names) > 8 else ""
    )
