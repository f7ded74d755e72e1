# SPDX-License-Identifier: Apache-2.0
"""A node's statements about its own journal, by which other parties' journals can bear witness to it.

Every statement of a node holds the head that its journal had just before (`statement.Head`). Whoever keeps the
statement keeps the head with it. Two more kinds of statements say more than a head alone can:

- a *start*: a process of the party has opened the journal and writes it from now on. Starts count up, so two processes
  that say the same number, or one that goes on after a later one began, write two copies of one journal;
- a *gap*: another party had seen a head that this journal did not lead to. Entries were lost, and what follows is
  another history from there on, openly.
"""

from typing import Annotated

import msgspec

from junto.journal.statement import Head

START = "start"
GAP = "gap"

Instance = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}\Z")]


class Start(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a `start` statement. anew: the journal before it was lost, and this one does not continue it."""

    number: Annotated[int, msgspec.Meta(ge=1, le=1 << 53)]
    instance: Instance
    anew: bool = False


class Gap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a `gap` statement: our journal had `size` entries when `party` told of a head that they do not lead
    to; so many statements of ours that it held, and we had lost, came back from it."""

    size: Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
    seen: Head
    party: Annotated[str, msgspec.Meta(max_length=64)]
    taken: Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]

    def covers(self, head: Head) -> bool:
        """True if a head that the journal does not lead to belongs to the entries declared lost."""
        return head.size <= self.seen.size and head.start <= self.seen.start
