# SPDX-License-Identifier: Apache-2.0
"""A certificate holds what several parties told of one step, and names who differs."""

import msgspec
import pytest

from junto.plan.certify import certifiers
from junto.plan.steps import Plan, Query, Read, Release
from junto.tasks.certificates import Certificate, certificates
from junto.types import DatasetName, Digest, PartyId, StepId

A, B, C, D = (PartyId(p) for p in "abcd")
SAME, OTHER, THIRD = (Digest("sha256:" + letter * 64) for letter in "012")
READ = (Read("weather", DatasetName("weather"), SAME, columns=("c0",)),)


def query(id: str, party: PartyId, certifies: str = "") -> Query:
    step = Query(StepId(id), party, "SELECT 1", READ, columns=("c0",), column_types=("INTEGER",))
    return msgspec.structs.replace(step, certifies=StepId(certifies)) if certifies else step


PLAN = Plan(
    "SELECT 1",
    D,
    (
        query("query", A),
        query("certify-0", C, "query"),
        query("certify-1", B, "query"),
        query("certify-2", B, "release"),
        Release(StepId("release"), D, "SELECT 1", columns=("c0",), column_types=("INTEGER",)),
    ),
)
ALL = {
    (StepId("query"), A): SAME,
    (StepId("certify-0"), C): SAME,
    (StepId("certify-1"), B): SAME,
    (StepId("certify-2"), B): OTHER,
    (StepId("release"), D): OTHER,
}


def of_query(**told: Digest) -> Certificate:
    ids = {"a": "query", "b": "certify-1", "c": "certify-0"}
    found, _ = certificates(PLAN, {(StepId(ids[p]), PartyId(p)): digest for p, digest in told.items()})
    return found


def test_equal_digests_certify_a_step() -> None:
    fragment, release = certificates(PLAN, ALL)
    assert fragment == Certificate(StepId("query"), A, ((A, SAME), (B, SAME), (C, SAME)), ())
    assert (fragment.sound, fragment.agreed, fragment.deviating) == (True, SAME, ())
    assert (release.party, release.told, release.sound) == (D, ((D, OTHER), (B, OTHER)), True)
    assert fragment.line == "step query was computed alike by a, b, c"
    assert set(certifiers(PLAN)) == {"query", "release"}


def test_one_that_differs_is_named_with_its_digest() -> None:
    found = of_query(a=SAME, b=OTHER, c=SAME)
    assert (found.sound, found.deviating) == (True, ((B, OTHER),))
    assert found.line.startswith("step query was not computed alike: b computed sha256:11111111…; a, c computed sha256")


def test_what_is_used_must_be_what_the_majority_computed() -> None:
    found = of_query(a=OTHER, b=SAME, c=SAME)
    assert (found.sound, found.agreed, found.deviating) == (False, SAME, ((A, OTHER),))


def test_without_a_majority_everybody_is_named() -> None:
    found = of_query(a=SAME, b=OTHER, c=THIRD)
    assert (found.sound, found.agreed) == (False, None)
    assert found.deviating == ((A, SAME), (B, OTHER), (C, THIRD))
    two, _ = certificates(Plan("q", D, PLAN.steps[:2] + PLAN.steps[3:]), {**ALL, (StepId("query"), A): OTHER})
    assert (two.agreed, len(two.deviating)) == (None, 2)


@pytest.mark.parametrize("told", [{}, {"a": SAME}, {"a": SAME, "b": SAME}])
def test_until_everybody_has_told_nothing_is_certified(told: dict[str, Digest]) -> None:
    found = of_query(**told)
    assert not found.sound
    assert set(found.waiting) == {A, B, C} - set(told)
    assert "waits for the digest of" in found.line


def test_a_digest_from_somebody_else_does_not_count() -> None:
    (found, _) = certificates(PLAN, {**ALL, (StepId("certify-1"), C): OTHER, (StepId("query"), B): OTHER})
    assert found.told == ((A, SAME), (B, SAME), (C, SAME))


def test_a_plan_without_certifiers_has_no_certificates() -> None:
    assert certificates(Plan("q", D, (PLAN.steps[0], PLAN.steps[-1])), ALL) == ()
