# SPDX-License-Identifier: Apache-2.0
"""What a user can type, set or import is written down."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from source_tree import ROOT, rooms, short, tracked

import junto
from junto.node.settings import _File

DOCS = ROOT / "docs"

_PAGES = [path for path in tracked() if path.suffix == ".md"]
_DECISIONS = sorted((DOCS / "decisions").glob("*.md"))


def test_public_names_are_sorted_and_there() -> None:
    assert list(junto.__all__) == sorted(junto.__all__)
    assert all(getattr(junto, name) is not None for name in junto.__all__)


@pytest.mark.parametrize("name", junto.__all__)
def test_a_public_name_is_documented(name: str) -> None:
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    assert re.search(rf"^#+ .*`(junto\.)?{name}\b", page, re.MULTILINE), f"docs/api.md has no heading for {name}"


def test_the_command_reference_is_what_the_commands_say() -> None:
    ran = subprocess.run(
        [sys.executable, "scripts/cli_docs.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr.strip()


@pytest.mark.parametrize("key", _File.__struct_fields__)
def test_a_setting_of_the_node_is_documented_with_its_default(key: str) -> None:
    page = (DOCS / "operating.md").read_text(encoding="utf-8")
    default = getattr(_File(), key)
    row = re.search(rf"^\| `{key}` \| `([^`]*)` \|", page, re.MULTILINE)
    assert row is not None, f"docs/operating.md has no row for {key} of node.toml"
    assert row[1].strip('"') == str(default), f"docs/operating.md says {key} = {row[1]}; it is {default}"


@pytest.mark.parametrize("room", rooms())
def test_a_room_has_its_place_in_the_design(room: str) -> None:
    assert f"`{room}/`" in (DOCS / "design.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", _PAGES, ids=short)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    missing = [t for t in targets if "://" not in t and not t.startswith("mailto:") and not (page.parent / t).exists()]
    assert not missing, f"{short(page)} links to {', '.join(missing)}"


@pytest.mark.parametrize("page", _DECISIONS, ids=short)
def test_a_decision_has_context_choice_cost_and_what_would_change_it(page: Path) -> None:
    headings = re.findall(r"^## (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == ["Context", "Choice", "Cost", "What would change our mind"]
