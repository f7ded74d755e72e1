# SPDX-License-Identifier: Apache-2.0
"""The texts of one plan as trees: each is parsed and checked once, however often the plan is looked at.

They have one allowance of syntax together: a plan of many texts costs no more to read than a plan of one.
"""

from sqlglot import exp

from junto.errors import InvalidInput
from junto.plan import expressions

PLAN_NODES = 20_000
"""Nodes of syntax, of all texts together."""


class Texts:
    """The trees read of a plan's SQL so far. Whoever gets a tree changes nothing in it."""

    def __init__(self) -> None:
        self._room = PLAN_NODES
        self._trees: dict[str, exp.Select] = {}
        self._checked: dict[tuple[str, frozenset[str]], bool] = {}

    def tree(self, text: str) -> exp.Select:
        """The one SELECT in a text. Raises UnsupportedSQL, InvalidInput, also when the plan has no allowance left."""
        if text not in self._trees:
            tree = expressions.parse(text)
            self._room -= sum(1 for _ in tree.walk())
            if self._room < 0:
                raise InvalidInput(
                    f"the plan's SQL holds more than {PLAN_NODES:,} names, values and operators in all:"
                    " ask in several smaller questions"
                )
            self._trees[text] = tree
        return self._trees[text]

    def canonical(self, text: str, functions: frozenset[str] = frozenset()) -> bool:
        """True if a text is the one spelling of its tree. Raises as `tree` does, and if a node is not on the list."""
        key = text, functions
        if key not in self._checked:
            tree = self.tree(text)
            expressions.check(tree, functions)
            self._checked[key] = expressions.spelling(tree) == text
        return self._checked[key]
