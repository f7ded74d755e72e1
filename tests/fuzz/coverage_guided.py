# SPDX-License-Identifier: Apache-2.0
"""Fuzzes one target, guided by which lines its inputs reach:

    python tests/fuzz/coverage_guided.py reviewer -max_total_time=600

Options are libFuzzer's. Inputs that reach something new are kept in `corpus/<target>` only if that folder is named as
an argument; without, in a temporary one. A promise that does not hold ends the run and is written to `crash-…`.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["junto", "sqlglot"]):
    from fuzz_targets import TARGETS


def main() -> None:
    """Run until libFuzzer ends."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"name one of {', '.join(TARGETS)}, then libFuzzer's options")
    name, *options = sys.argv[1:]
    seeds = Path(__file__).parent / "corpus" / name
    if not any(not option.startswith("-") for option in options):
        options.append(tempfile.mkdtemp(prefix=f"junto-fuzz-{name}-"))
    atheris.Setup([sys.argv[0], *options, str(seeds)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
