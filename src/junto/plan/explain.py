# SPDX-License-Identifier: Apache-2.0
"""A plan in plain words, before it runs: who does what, who learns what, and what each owner must permit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import assert_never

from junto.catalog.dataset import Dataset
from junto.plan.disclosure import Disclosure, disclosures
from junto.plan.review import Demand, review
from junto.plan.steps import AnyStep, MaskedSum, Move, Plan, Query, Release, Threshold
from junto.plan.texts import Texts


@dataclass(frozen=True)
class Explanation:
    """The meaning of a plan. `str()` gives the lines to print."""

    plan: Plan
    disclosures: tuple[Disclosure, ...]
    demands: tuple[tuple[str, Demand], ...]  # by owner
    at_home: bool = False  # whether the asker's own rules bind the user who asks

    @property
    def lines(self) -> tuple[str, ...]:
        """The explanation, line by line, without colours."""
        return tuple(self._lines())

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def _lines(self) -> Iterator[str]:
        yield "Who does what"
        doing: dict[str, list[str]] = {}
        for step in self.plan.steps:
            who, what = _doing(step)
            doing.setdefault(what, []).append(who)
        yield from _grid([(", ".join(dict.fromkeys(who)), what) for what, who in doing.items()])
        yield ""
        yield "Who learns what"
        if self.disclosures:
            told: dict[tuple[str, str], list[str]] = {}
            for d in self.disclosures:
                among = {d.recipient, *d.sources} == self._contributors
                alike = f"{d.what} (from {'the other owners' if among else ', '.join(d.sources)})"
                told.setdefault((d.form, alike), []).append(d.recipient)
            rows = [(", ".join(who), form, what) for (form, what), who in told.items()]
            yield from _grid([("recipient", "form", "what"), *rows])
        else:
            yield "  nobody learns anything of another party's"
        yield ""
        yield "What owners must permit"
        needs: dict[tuple[str, str, str], dict[str, dict[str, None]]] = {}
        for owner, demand in self.demands:
            for need in demand.needs if self.at_home or demand.recipients != (owner,) else ():
                entry = needs.setdefault((demand.dataset, need.column, need.allow), {})
                entry.setdefault("owners", {})[owner] = None
                entry.setdefault("clauses", {})[need.clause] = None
        if needs:
            table = [(", ".join(e["owners"]), *what, "; ".join(e["clauses"])) for what, e in needs.items()]
            yield from _grid([("owners", "dataset", "column", "needs", "because of"), *table])
        else:
            yield "  nothing: it is all open, or the asker's own"
        if self.at_home and needs:
            yield f"  of {self.plan.asker}'s own rows, groups with too few units are left out for this user"

    @property
    def _contributors(self) -> frozenset[str]:
        return frozenset(p for s in self.plan.steps if isinstance(s, Threshold) for p in s.contributors)


def explain(plan: Plan, datasets: Sequence[Dataset], *, at_home: bool = False) -> Explanation:
    """The meaning of a plan, by the datasets published. Raises PeerFault if it is malformed or of other versions.

    at_home: true if the user who asks is bound by the rules of the asker's own datasets.
    """
    texts = Texts()
    demands = [(party, demand) for party in plan.parties for demand in review(plan, party, datasets, texts).demands]
    return Explanation(plan, disclosures(plan, datasets, texts), tuple(demands), at_home)


def _doing(step: AnyStep) -> tuple[str, str]:
    match step:
        case Query() if step.certifies:
            return step.party, f"computes step {step.certifies} again, to certify it"
        case Query():
            tables = ", ".join(read.name for read in step.reads)
            kind = "selects rows of" if step.keys is None else "groups its" if step.keys else "sums up its"
            return step.party, f"{kind} {tables}"
        case Threshold():
            least = f"{step.units} units" + (f" of {step.parties} parties" if step.parties > 1 else "")
            if len(step.contributors) == 1:
                return step.contributors[0], f"keeps back groups and figures of fewer than {least}"
            way = "" if step.tokens == "hmac" else ", and line groups up so that nobody can test a guess alone"
            return ", ".join(step.nodes), f"decide which groups and figures have {least}, not how many{way}"
        case MaskedSum():
            if len(step.contributors) == 1:
                return step.contributors[0], f"sends the sums of the groups that passed to {step.receiver}"
            return ", ".join(step.contributors), f"add up the groups that passed, masked, for {step.receiver}"
        case Move():
            what = "its rows" if step.threshold is None else "its minima and maxima of the groups that passed"
            return step.sender, f"sends {what} to {', '.join(step.to)}"
        case Release():
            return step.receiver, "makes the answer of what it was given"
        case _:
            assert_never(step)


def _grid(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Rows as columns of text, each as wide as its widest cell; the last runs free."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)] if rows else []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        yield "  " + "  ".join([*cells, row[-1]]).rstrip()
