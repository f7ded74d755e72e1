# SPDX-License-Identifier: Apache-2.0
"""What `docs/tasks.md` shows is what the machine does."""

import runpy
from pathlib import Path

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "task_table.py"


def test_the_page_shows_the_tables_of_today() -> None:
    script = runpy.run_path(str(SCRIPT))
    page = script["PAGE"].read_text()
    assert script["drawn"](page) == page, "run: python scripts/task_table.py"
    assert "running --> done" in page
