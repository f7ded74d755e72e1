# SPDX-License-Identifier: Apache-2.0
"""Every attack against real nodes, and how many people each recovers: `make attacks`.

Exit status 0 if nobody is recovered but by attacks that need several allowed answers, which the table marks `later`;
1 if somebody is; 2 if harmless questions are not answered rightly, so that the attacks would prove nothing.

With --mutants each defence is switched off in turn, and the attack that it stops must succeed: 0 if each does, else 1.
"""

import argparse
import sys
import time

import attack_mutants
import attack_plans
import attack_sql
from attack_desk import Desk
from attack_kinds import ATTACKS
from attack_world import Truth, World, drawn

MODULES = (attack_sql, attack_plans)  # each adds its attacks to the list when it is loaded


def harmless(desk: Desk) -> str:
    """What is wrong with the answer to a harmless question; empty if nothing is."""
    totals: dict[str, tuple[int, int]] = {}
    for person in desk.truth.people:
        count, total = totals.get(person.dept, (0, 0))
        totals[person.dept] = count + 1, total + person.salary
    sql = "SELECT dept, COUNT(*), SUM(salary) FROM people GROUP BY dept ORDER BY dept"
    rows = [(dept, count, int(str(total))) for dept, count, total in desk.rows(sql) or []]
    expected = [(dept, *totals[dept]) for dept in sorted(totals)]
    return "" if rows == expected else f"{sql} is not answered rightly: {next(iter(desk.errors), 'other figures')}"


def mutants(truth: Truth) -> int:
    """Run the attack of each mutant; the exit status."""
    missed = 0
    for mutant in attack_mutants.MUTANTS:
        attack = ATTACKS[mutant.attack]
        with World(truth) as world, mutant.switched_off():
            desk = Desk(world)
            found = attack.recovered(desk, attack.run(desk))
        missed += found == 0
        word = "recovers" if found else "recovers NOBODY"
        sys.stdout.write(f"without {mutant.defence}: {attack.name} {word} {found or ''}\n".replace(" \n", "\n"))
        sys.stdout.flush()
    count = len(attack_mutants.MUTANTS)
    sys.stdout.write(f"{count - missed} of {count} defences are what stops their attack\n")
    return 1 if missed else 0


def main() -> int:
    """Run what the command line names; the exit status."""
    parser = argparse.ArgumentParser(prog="make attacks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--people", type=int, default=900, help="people in the tables (900)")
    parser.add_argument("--targets", type=int, default=12, help="people whom the attacks are after (12)")
    parser.add_argument("--seed", type=int, default=1, help="what the people are drawn from (1)")
    parser.add_argument("--only", default="", help="names of attacks, with commas (all)")
    parser.add_argument("--mutants", action="store_true", help="switch off each defence: its attack must succeed")
    asked = parser.parse_args()
    names = asked.only.split(",") if asked.only else list(ATTACKS)
    unknown = sorted(set(names) - set(ATTACKS))
    if unknown:
        parser.error(f"there is no attack {', '.join(unknown)}; there are {', '.join(ATTACKS)}")
    truth = drawn(asked.seed, asked.people, asked.targets)
    if asked.mutants:
        return mutants(truth)
    failed = 0
    began = time.monotonic()
    for name in names:
        attack = ATTACKS[name]
        with World(truth) as world:
            desk = Desk(world)
            wrong = harmless(desk)
            if wrong:
                sys.stderr.write(wrong + "\n")
                return 2
            claims = attack.run(desk)
        found = attack.recovered(desk, claims)
        failed += found > 0 and not attack.later
        why = f"later: {attack.later}" if attack.later else next(iter(desk.errors), "")
        line = f"{name:<34}{found:>4} recovered{len(claims):>5} claimed{desk.questions:>6} questions  {why[:100]}"
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    seconds = time.monotonic() - began
    sys.stdout.write(f"{len(names)} attacks in {seconds:.0f} s; {failed} that a rule must stop recover people\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
