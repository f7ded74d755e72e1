# SPDX-License-Identifier: Apache-2.0
"""Draws a task's states from the tables in `tasks/table.py`: `python scripts/task_table.py` rewrites docs/tasks.md."""

import re
import sys
from pathlib import Path

from junto.tasks.events import Event
from junto.tasks.table import ENDED, LEGAL, MOVES

PAGE = Path(__file__).parent.parent / "docs" / "tasks.md"
_BLOCK = re.compile(r"(<!-- drawn by scripts/task_table.py -->\n).*?(<!-- end -->)", re.DOTALL)


def drawn(page: str) -> str:
    """The page with its block drawn anew."""
    return _BLOCK.sub(lambda found: f"{found[1]}{_diagram()}\n{_table()}{found[2]}", page)


def _diagram() -> str:
    arrows = [f"    {state} --> {following}" for state, after in MOVES.items() for following in after]
    ends = [f"    {state} --> [*]" for state in MOVES if state in ENDED]
    return "\n".join(["```mermaid", "stateDiagram-v2", "    [*] --> new", *arrows, *ends, "```", ""])


def _table() -> str:
    states = [state for state in LEGAL if state not in ENDED]
    head = f"| event | {' | '.join(states)} | ended |\n|---|{'---|' * (len(states) + 1)}\n"
    rows = []
    for event in Event.__args__:
        cells = ["●" if event in LEGAL[state] else "" for state in states]
        late = "○" if all(event in LEGAL[state] for state in ENDED) else ""
        rows.append(f"| `{event.__name__}` | {' | '.join(cells)} | {late} |\n")
    return head + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(drawn(PAGE.read_text()))
    sys.stdout.write(f"{PAGE.name}\n")
