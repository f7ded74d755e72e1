# SPDX-License-Identifier: Apache-2.0
"""The disclosures of a plan (who learns what), derived from its steps alone, so that all parties get the same list.

The forms, from the most that can be learnt to the least harmful:

    rows      row by row
    matched   which of one's own keys another party has too
    groups    keys or values of groups of at least the threshold's units
    masked    sums over all contributors together, of such groups
    shared    random shares, which say nothing unless the computing nodes collude
    noised    with noise of a stated budget
    open      what everybody may see anyway
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import msgspec
from sqlglot import exp

from junto.catalog.dataset import Dataset
from junto.errors import InvalidInput
from junto.plan import expressions
from junto.plan.fragment import is_open
from junto.plan.spreads import is_spread
from junto.plan.steps import MaskedSum, Move, Plan, Query, Release, Threshold
from junto.plan.texts import Texts
from junto.types import DatasetName, Digest, PartyId, StepId

Form = Literal["rows", "matched", "groups", "masked", "shared", "noised", "open"]


class Disclosure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing a plan lets somebody learn: from whom, what in plain words, in which form, of which columns."""

    recipient: PartyId
    sources: tuple[PartyId, ...]
    what: str
    form: Form
    step: StepId
    columns: tuple[str, ...] = ()


def disclosures(plan: Plan, datasets: Iterable[Dataset] = (), texts: Texts | None = None) -> tuple[Disclosure, ...]:
    """Everything that anybody learns when a plan runs, in the order of its steps.

    datasets: those published; rows of open ones are called `open` rather than `rows`. The list whose digest goes into
    a contract is the one without them, which depends on nothing but the plan. The plan must have passed `review.check`,
    whose `texts` these may be.
    """
    opened = {(d.party, d.name, d.version) for d in datasets if is_open(d)}
    read = texts or Texts()
    return tuple(d for step in plan.steps for d in _of_step(plan, step, opened, read))


def digest_of(found: Sequence[Disclosure]) -> Digest:
    """SHA-256 of a list of disclosures in its canonical spelling."""
    return Digest("sha256:" + hashlib.sha256(msgspec.json.encode(tuple(found))).hexdigest())


_TESTED = {"hmac": "any guessed group can be tested", "oprf": "no group that it does not bring can be tested"}

_Opened = set[tuple[PartyId, DatasetName, Digest]]


def _of_step(plan: Plan, step: object, opened: _Opened, texts: Texts) -> Iterator[Disclosure]:
    match step:
        case Threshold():
            yield from _of_threshold(plan, step, texts)
        case MaskedSum():
            yield _of_sums(plan, step, texts)
        case Move():
            yield from _of_move(plan, step, opened, texts)
        case Query() | Release():
            pass  # these stay where they are


def _of_threshold(plan: Plan, step: Threshold, texts: Texts) -> Iterator[Disclosure]:
    query = _query(plan, step.inputs[0])
    keys = _spoken(texts, query, query.keys or ())
    columns = _columns(texts, query, query.keys or ())
    least = f"at least {step.units} units" + (f" of at least {step.parties} parties" if step.parties > 1 else "")
    what = f"the values of {keys} of groups with {least}" if keys else f"whether there are {least}"
    yield Disclosure(
        step.receiver,
        step.contributors,
        f"{what}; which figures have; that some were withheld, where enough units are behind them",
        "groups",
        step.id,
        columns,
    )
    if len(step.contributors) == 1:
        return
    for party in step.contributors:
        others = tuple(p for p in step.contributors if p != party)
        if query.keys:
            told = (
                f"which of its own groups the others have too ({_TESTED[step.tokens]}), about how many groups there are"
            )
            yield Disclosure(party, others, f"{told}, which of them pass", "matched", step.id, columns)
        else:
            yield Disclosure(party, others, "whether the threshold is passed", "matched", step.id)
    for party in step.nodes:
        others = tuple(p for p in step.contributors if p != party)
        what = "random shares of how many units each figure has"
        what += "" if party in step.contributors else ", about how many groups there are"
        yield Disclosure(party, others, what, "shared", step.id)


def _of_sums(plan: Plan, step: MaskedSum, texts: Texts) -> Disclosure:
    query = _query(plan, step.inputs[0])
    names = tuple(measure.name for measure in step.measures)
    what = f"{_spoken(texts, query, names)} of the groups that passed, each where it passed itself"
    columns = _columns(texts, query, names)
    if len(step.contributors) == 1:
        return Disclosure(step.receiver, step.contributors, what, "groups", step.id, columns)
    what += f", over {_people(step.contributors)} together"
    return Disclosure(step.receiver, step.contributors, what, "masked", step.id, columns)


def _of_move(plan: Plan, step: Move, opened: _Opened, texts: Texts) -> Iterator[Disclosure]:
    query = _query(plan, step.input)
    columns = _columns(texts, query, step.columns)
    form: Form = "rows"
    if step.threshold is not None:
        names = tuple(m.name for m in query.measures if m.name in step.columns)
        what, form = f"{_spoken(texts, query, names)} of the groups that passed, of {step.sender} alone", "groups"
    else:
        tables = ", ".join(sorted({read.dataset for read in query.reads if read.dataset is not None})) or "its tables"
        what = f"rows of {tables}: {_spoken(texts, query, step.columns)}"
        if query.reads and all((query.party, r.dataset, r.version) in opened for r in query.reads):
            form = "open"
    for party in step.to:
        yield Disclosure(party, (step.sender,), what, form, step.id, columns)


def _query(plan: Plan, id: StepId) -> Query:
    step = plan.step(id)
    if not isinstance(step, Query):
        raise InvalidInput(f"step {id} is no query")
    return step


def _outputs(texts: Texts, query: Query) -> dict[str, exp.Expr]:
    return {p.alias: p.this for p in texts.tree(query.sql).expressions if isinstance(p, exp.Alias)}


def _spoken(texts: Texts, query: Query, names: Sequence[str]) -> str:
    """Outputs of a fragment in words a person would use."""
    outputs = _outputs(texts, query)
    words = [_plain(outputs[name]) if name in outputs else name for name in names]
    shown = list(dict.fromkeys(words))
    return ", ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "")


def _plain(node: exp.Expr) -> str:
    """A partial aggregate without what makes it exact."""
    inner = node
    if isinstance(inner, exp.Cast) and isinstance(inner.this, exp.Coalesce):
        inner = inner.this
    if isinstance(inner, exp.Coalesce) and inner.this.find(*expressions.AGGREGATES, exp.Anonymous):
        inner = inner.this
    if isinstance(inner, exp.Anonymous) and str(inner.this).lower() in expressions.FRAGMENT_FUNCTIONS:
        operand = inner.expressions[0]
        bare = operand.this if isinstance(operand, exp.Cast) else operand
        if is_spread(inner):
            square = exp.Mul(this=bare.copy(), expression=bare.copy())
            return ", ".join(expressions.readable(exp.Sum(this=summed)) for summed in (bare, square))
        inner = exp.Sum(this=bare)
    return expressions.readable(inner)


def _columns(texts: Texts, query: Query, names: Sequence[str]) -> tuple[str, ...]:
    outputs = _outputs(texts, query)
    found = {c.name for name in names if name in outputs for c in outputs[name].find_all(exp.Column)}
    return tuple(sorted(found))


def _people(parties: Sequence[PartyId]) -> str:
    return f"{', '.join(parties[:-1])} and {parties[-1]}" if len(parties) > 1 else parties[0]
