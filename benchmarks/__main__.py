# SPDX-License-Identifier: Apache-2.0
"""All figures: a table on the terminal, and `benchmarks/results.json`.

python -m benchmarks              everything, some ten minutes
python -m benchmarks link secure  only these
"""

import json
import sys
import traceback
from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.table import Table

BENCHES = ("link", "journal", "secure", "engine", "node", "question", "tasks")
RESULTS = Path(__file__).parent / "results.json"

Row = dict[str, object]


def main(wanted: list[str]) -> int:
    """Run the benches named, or all; 1 if one of them failed."""
    unknown = sorted(set(wanted) - set(BENCHES))
    if unknown:
        print(f"no bench {', '.join(unknown)}; there are {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    rows: list[Row] = []
    failed: list[str] = []
    for bench in wanted or BENCHES:
        print(f"{bench} …", file=sys.stderr, flush=True)
        try:
            rows += import_module(f"benchmarks.bench_{bench}").run()
        except Exception:  # noqa: BLE001  # the others still run; it is told below
            traceback.print_exc()
            failed.append(bench)
    _print(rows)
    if not wanted:
        RESULTS.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    for bench in failed:
        print(f"{bench} failed, see above", file=sys.stderr)
    return 1 if failed else 0


def _print(rows: list[Row]) -> None:
    table = Table("what", "reached", "unit", "peer", "its", "ratio", "aim", "met", show_edge=False)
    for row in rows:
        met = {True: "yes", False: "NO", None: ""}[row["met"]]  # type: ignore[index]  # JSON's true, false or null
        figures = (_short(row[key]) for key in ("value", "peer_value", "ratio"))
        value, peer_value, ratio = figures
        table.add_row(
            str(row["name"]), value, str(row["unit"]), str(row["peer"]), peer_value, ratio, str(row["aim"]), met
        )
    Console(width=180).print(table)


def _short(value: object) -> str:
    return f"{value:,.4g}" if isinstance(value, int | float) else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
