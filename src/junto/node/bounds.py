# SPDX-License-Identifier: Apache-2.0
"""The limits on other parties' input to a node, and the heads of its journal that they saw: read at a start."""

from typing import TYPE_CHECKING

from junto.node.heads import Heads
from junto.node.quotas import Quotas

if TYPE_CHECKING:
    from junto.node.node import Node


def bounds_of(node: "Node", instance: str) -> tuple[Quotas, Heads]:
    """Other parties' quotas at a node, and the heads of their journals and of ours. instance: of this process."""
    clock, teller = node.ground.unix_time, node.notices.teller
    quotas = Quotas(node.me, node.settings.quota, clock, node.runner.open_of, teller("quota", "warning"))
    quotas.recall(node.journal.kept_since(quotas.day_began))
    known = (node.ledger, node.facts, node.links, instance, node.others)
    return quotas, Heads(*known, node.spread, teller("journal", "error"))
