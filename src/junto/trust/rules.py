# SPDX-License-Identifier: Apache-2.0
"""Rules, and the judgement of what a question needs by them.

Everything is denied that no rule and no grant allows. Each need of a question, a kind of use of one column, is looked
at once for every party that would learn from it: the rules and grants in force for that party, purpose, column and
kind are collected, and the most permissive serves. A question keeps to the strictest of those that served it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, assert_never

import msgspec

from junto.errors import InvalidInput
from junto.trust.allow import (
    DEFAULT_DOMINANCE,
    DEFAULT_UNITS,
    EVERY_COLUMN,
    IN_WORDS,
    MIN_UNITS,
    Allow,
    check_columns,
    check_name,
    check_purposes,
    check_recipients,
    check_units,
    serves,
)
from junto.trust.grants import Grant, GrantId, GrantRequest
from junto.trust.rights import Rights
from junto.types import DatasetName, PartyId

__all__ = ["Allow", "Need", "Owners", "Refusal", "Rule", "Verdict", "judge", "refused_line"]

Owners = Literal["all", "any"]
"""The owners that a question takes in, of a table that several parties publish under one name: all, or any."""

DomainValue = str | int | float | bool


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A line saying what may leave of the columns named, and to whom."""

    columns: tuple[str, ...]
    allow: Allow
    to: tuple[PartyId, ...] = ()  # parties, or roles of the owner's own users (`@analysts`); empty: any party
    purpose: tuple[str, ...] = ()  # empty: any
    units: int = DEFAULT_UNITS  # a group released holds at least so many
    parties: int = 1  # and so many contributors
    dominance: float = DEFAULT_DOMINANCE  # and no unit brings more than this share of a sum
    owners: Owners = "all"  # of the table's name that a question of groups must take in
    domain: tuple[DomainValue, ...] | None = None  # the values a grouping key can take, when they are public
    name: str = ""

    def __post_init__(self) -> None:
        """Raises InvalidInput; out of a decoder, msgspec.ValidationError."""
        check_columns(self.columns)
        check_recipients(self.to)
        check_purposes(self.purpose)
        check_units(self.units)
        if self.name:
            check_name(self.name, "rule")
        if not 1 <= self.parties <= 1000:
            raise InvalidInput(f"parties = {self.parties}: contributors to a group are from 1 to 1000")
        if not 0.5 <= self.dominance <= 1:
            raise InvalidInput(f"dominance = {self.dominance}: one unit's share of a sum is capped from 0.5 to 1")
        if self.allow == "rows" and not self.to:
            raise InvalidInput('allow = "rows" needs its recipients: add to = [...], or allow = "open" for all')
        if self.allow == "open" and (self.to or self.purpose):
            raise InvalidInput('allow = "open" is to all, for any purpose: for some, write "rows" with to = [...]')
        if self.domain is not None and (self.allow != "group" or len(self.columns) != 1 or not self.domain):
            raise InvalidInput('domain lists the values of one column with allow = "group"')

    @property
    def label(self) -> str:
        """The rule's name in messages: its own, or else what it says."""
        return self.name or f"{self.allow} on {', '.join(self.columns)}"

    def speaks_of(self, column: str) -> bool:
        """True if the column is among the rule's columns."""
        return column in self.columns or self.columns == (EVERY_COLUMN,)


class Need(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A question needs `allow` on a column of one party's dataset, because of `clause`.

    Column `*` with `aggregate` is the number of rows alone, as `count(*)` without grouping needs it.
    """

    party: PartyId
    dataset: DatasetName
    column: str
    allow: Allow
    clause: str


class Refusal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The reason why one need is not met, and the grant that would meet it."""

    need: Need
    recipients: tuple[PartyId, ...]  # those for whom it is not; of the owner's own user, the roles
    rule: str | None  # the nearest rule's label
    why: str  # and why it does not serve
    grant: GrantRequest  # what the owner would have to give

    @property
    def command(self) -> str:
        """The grant as the owner would type it."""
        return self.grant.command

    @property
    def sentence(self) -> str:
        """The grant in words."""
        return self.grant.sentence(self.need.party)


class Verdict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An owner's decision about a question's use of one of its datasets."""

    asker: PartyId
    allowed: bool
    units: int  # groups of fewer units stay hidden
    parties: int  # and groups of fewer contributors
    refusals: tuple[Refusal, ...] = ()
    used_rules: tuple[str, ...] = ()  # labels, sorted
    used_grants: tuple[GrantId, ...] = ()  # sorted; one use of each if the question runs
    dominance: int = 100  # and sums of which one unit brings more per cent
    home_units: int = 0  # of the owner's own groups, for a user of its own who asks; 0: all of them show
    owners: Owners = "any"  # of the dataset's name that the question must take in


def judge(
    dataset: DatasetName,
    rules: Iterable[Rule],
    grants: Iterable[Grant],
    needs: Iterable[Need],
    *,
    recipients: Iterable[PartyId],
    asker: PartyId,
    purpose: str,
    now: float,
    used: Mapping[GrantId, int] | None = None,
    rights: Rights | None = None,
) -> Verdict:
    """The verdict whether `recipients` may learn what `needs` say of one dataset, by its owner's rules and grants.

    `purpose` is empty if none was given; `used` says how often each grant was used already. `rights` are those of the
    owner's own user who asks: where the owner is a recipient, that user must be allowed. Without `rights`, as of an
    operator, what an owner learns of its own data needs no rule. Raises InvalidInput if the needs are of another
    dataset or of several owners, or the purpose is malformed.
    """
    check_purposes((purpose,) if purpose else ())
    rules, grants, learners = tuple(rules), tuple(grants), sorted(set(recipients))
    question = _Question(dataset, purpose, now, used or {}, rights if rights and not rights.operator else None)
    served: list[Rule | Grant] = []
    at_home: list[Rule | Grant] = []
    refusals: list[Refusal] = []
    wanted = tuple(dict.fromkeys(needs))
    for need in wanted:
        if (need.dataset, need.party) != (dataset, wanted[0].party):
            raise InvalidInput(f"a need of {need.party}'s {need.dataset} cannot be judged by another's {dataset} rules")
        lacking: list[PartyId] = []
        for recipient in learners:
            if recipient == need.party and question.rights is None:
                continue
            covering: list[Rule | Grant] = [r for r in rules if question.rule_covers(r, need, recipient)]
            covering += [g for g in grants if question.grant_covers(g, need, recipient)]
            if covering:
                served.append(min(covering, key=lambda serving: (*_limits(serving), -_dominance(serving))))
                if recipient == need.party:
                    at_home.append(served[-1])
            else:
                lacking.append(recipient)
        if lacking:
            refusals.append(_refusal(need, tuple(lacking), rules, grants, question))
    return Verdict(
        asker=asker,
        allowed=not refusals,
        units=max((_limits(s)[0] for s in served), default=MIN_UNITS),
        parties=max((_limits(s)[1] for s in served), default=1),
        home_units=0 if question.rights is None else max(map(_home_units, at_home), default=DEFAULT_UNITS),
        owners="all" if any(_limits(s)[2] for s in served) else "any",
        refusals=tuple(refusals),
        used_rules=tuple(sorted({s.label for s in served if isinstance(s, Rule)})),
        used_grants=tuple(sorted({s.id for s in served if isinstance(s, Grant)})),
        dominance=min((_dominance(s) for s in served), default=100),
    )


def may_learn(
    rules: Iterable[Rule],
    grants: Iterable[Grant],
    *,
    asker: PartyId,
    purpose: str,
    now: float,
    used: Mapping[GrantId, int],
) -> bool:
    """True if any of a dataset's rules, or of the grants on it, speaks to the asker and the purpose at all."""
    return any((not rule.to or asker in rule.to) and _purpose_serves(rule.purpose, purpose) for rule in rules) or any(
        asker in grant.to and _purpose_serves(grant.purpose, purpose) and grant.in_force(now, used.get(grant.id, 0))
        for grant in grants
    )


def refused_line(verdicts: Iterable[Verdict]) -> str:
    """The one line of a `Refused` by one owner: which columns, by which rules, and what it would type to allow them.

    Raises InvalidInput if nothing is refused.
    """
    refusing = [verdict for verdict in verdicts if not verdict.allowed]
    refusals = [refusal for verdict in refusing for refusal in verdict.refusals]
    if not refusals:
        raise InvalidInput("nothing is refused: only a refusal has a line that says why")
    shown = [
        f"{_use(r.need)} ({_short(r.need.clause)}) for {', '.join(r.recipients)}: {r.why}" for r in refusals[:_SHOWN]
    ]
    if len(refusals) > _SHOWN:
        shown.append(f"and {len(refusals) - _SHOWN} more")
    typed = " && ".join(grant.command for grant in _merged([refusal.grant for refusal in refusals]))
    owner, asker = refusals[0].need.party, refusing[0].asker
    whom = "its own user" if asker == owner else asker
    return f"{owner} refuses {whom}: {'; '.join(shown)}. To allow it, {owner} would type: {typed}"


_SHOWN = 4  # refusals told one by one in a line
_GRANT_DAYS = 30  # how long the grant lasts that a refusal proposes


@dataclass(frozen=True, slots=True)
class _Question:
    """A question's use of one dataset: what for and when."""

    dataset: DatasetName
    purpose: str
    now: float
    used: Mapping[GrantId, int]
    rights: Rights | None  # of the owner's own user who asks, unless no rule binds that user

    def names(self, recipient: PartyId, owner: PartyId) -> frozenset[str]:
        """The names under which a rule or grant reaches a recipient."""
        if recipient == owner and self.rights is not None:
            return self.rights.names(owner)
        return frozenset((recipient,))

    def spelled(self, recipient: PartyId, owner: PartyId) -> tuple[PartyId, ...]:
        """A recipient as a grant would name it: the roles of the owner's user, if that user has any."""
        return tuple(sorted(map(PartyId, self.names(recipient, owner) - {recipient}))) or (recipient,)

    def reaches(self, to: tuple[PartyId, ...], recipient: PartyId, owner: PartyId) -> bool:
        """True if a rule to `to` is for this recipient."""
        return not to or not self.names(recipient, owner).isdisjoint(to)

    def rule_covers(self, rule: Rule, need: Need, recipient: PartyId) -> bool:
        """True if a rule serves the need, for this recipient and purpose."""
        reached = self.reaches(rule.to, recipient, need.party)
        return _kind_serves(rule, need) and reached and _purpose_serves(rule.purpose, self.purpose)

    def grant_names(self, grant: Grant, need: Need) -> bool:
        """True if a grant is one of the owner's on this dataset, for this column and kind."""
        return grant.party == need.party and grant.dataset == self.dataset and grant.speaks_of(need.column, need.allow)

    def grant_covers(self, grant: Grant, need: Need, recipient: PartyId) -> bool:
        """True if a grant serves the need, for this recipient and purpose, now."""
        return (
            self.grant_names(grant, need)
            and self.reaches(grant.to, recipient, need.party)
            and _purpose_serves(grant.purpose, self.purpose)
            and grant.in_force(self.now, self.used.get(grant.id, 0))
        )


def _kind_serves(rule: Rule, need: Need) -> bool:
    if _counts_rows(need):
        # How many rows there are shows in every count that a grouping or an aggregate gives.
        return serves(rule.allow, "aggregate") or serves(rule.allow, "group")
    return rule.speaks_of(need.column) and serves(rule.allow, need.allow)


def _purpose_serves(purposes: tuple[str, ...], purpose: str) -> bool:
    return not purposes or purpose in purposes


def _limits(permission: Rule | Grant) -> tuple[int, int, bool]:
    """Units, parties, and if all owners are needed; of what may be seen row by row, the least that every group has."""
    match permission:
        case Rule(allow="rows" | "open"):
            return MIN_UNITS, 1, False
        case Rule():
            return permission.units, permission.parties, permission.owners == "all"
        case Grant():
            return permission.units, 1, permission.allow not in ("rows", "open")
        case _:
            assert_never(permission)


def _dominance(permission: Rule | Grant) -> int:
    """The largest share of a sum that one unit may be, in per cent."""
    match permission:
        case Rule(allow="rows" | "open"):
            return 100
        case Rule():
            return int(permission.dominance * 100 + 1e-9)
        case Grant():
            return int(DEFAULT_DOMINANCE * 100)
        case _:
            assert_never(permission)


def _home_units(permission: Rule | Grant) -> int:
    """The units of the owner's own groups that its own user may see; 0 where that user may see the rows."""
    return 0 if permission.allow in ("rows", "open") else _limits(permission)[0]


def _refusal(
    need: Need, lacking: tuple[PartyId, ...], rules: Iterable[Rule], grants: Iterable[Grant], question: _Question
) -> Refusal:
    def nearness(rule: Rule) -> tuple[bool, bool, int]:
        reached = sum(question.reaches(rule.to, recipient, need.party) for recipient in lacking)
        return _kind_serves(rule, need), _purpose_serves(rule.purpose, question.purpose), reached

    nearest = max((r for r in rules if r.speaks_of(need.column) or _kind_serves(r, need)), key=nearness, default=None)
    if nearest is None:
        reasons = [f"no rule {'allows any count' if _counts_rows(need) else 'speaks of it'}"]
    else:
        reasons = [_rule_shortfall(nearest, need, lacking, question)]
    reasons += [why for g in grants if (why := _grant_shortfall(g, need, lacking, question))]
    to = tuple(name for recipient in lacking for name in question.spelled(recipient, need.party))
    return Refusal(
        need=need,
        recipients=to,
        rule=None if nearest is None else nearest.label,
        why="; ".join(reasons),
        grant=GrantRequest(
            to=to,
            dataset=need.dataset,
            columns=(need.column,),
            allow=need.allow,
            until=(question.now // 86400 + _GRANT_DAYS) * 86400,
            purpose=(question.purpose,) if question.purpose else (),
        ),
    )


def _rule_shortfall(rule: Rule, need: Need, lacking: tuple[PartyId, ...], question: _Question) -> str:
    """The reason why a rule does not serve: `rule 3 allows it only to faa`."""
    limits = []
    if not all(question.reaches(rule.to, recipient, need.party) for recipient in lacking):
        limits.append(f"only to {', '.join(rule.to)}")
    if not _purpose_serves(rule.purpose, question.purpose):
        limits.append(_only_for(rule.purpose, question))
    name = rule.label if rule.label.startswith("rule ") else f"rule {rule.label}"
    what = "it " if _kind_serves(rule, need) else f"only {rule.allow}" + (", " if limits else "")
    return f"{name} allows {what}{', '.join(limits)}"


def _grant_shortfall(grant: Grant, need: Need, lacking: tuple[PartyId, ...], question: _Question) -> str:
    """The reason why a grant made for such a need does not serve it; empty if it is about something else."""
    reached = any(question.reaches(grant.to, recipient, need.party) for recipient in lacking)
    if not question.grant_names(grant, need) or not reached:
        return ""
    if question.now >= grant.until:
        return f"grant {grant.id} has ended"
    if question.now < grant.not_before:
        return f"grant {grant.id} has not begun"
    if not _purpose_serves(grant.purpose, question.purpose):
        return f"grant {grant.id} is {_only_for(grant.purpose, question)}"
    return f"grant {grant.id} is used up"


def _only_for(purposes: tuple[str, ...], question: _Question) -> str:
    return f"only for {' or '.join(purposes)} (asked for {question.purpose or 'no purpose'})"


def _use(need: Need) -> str:
    if _counts_rows(need):
        return f"the number of rows of {need.dataset}"
    return f"{need.column} of {need.dataset} {IN_WORDS[need.allow]}"


def _counts_rows(need: Need) -> bool:
    return need.column == EVERY_COLUMN and need.allow == "aggregate"


def _short(clause: str) -> str:
    """A clause on one line, cut where it grows long."""
    line = " ".join(clause.split())
    return line if len(line) <= 100 else line[:99] + "…"


def _merged(grants: Iterable[GrantRequest]) -> list[GrantRequest]:
    """The same permissions in as few grants as hold them: one for each dataset, kind and set of recipients."""
    merged: dict[tuple[DatasetName, Allow, tuple[PartyId, ...]], GrantRequest] = {}
    for grant in grants:
        key = (grant.dataset, grant.allow, grant.to)
        held = merged.get(key, grant)
        columns = tuple(dict.fromkeys((*held.columns, *grant.columns)))
        merged[key] = msgspec.structs.replace(held, columns=(EVERY_COLUMN,) if EVERY_COLUMN in columns else columns)
    return list(merged.values())
