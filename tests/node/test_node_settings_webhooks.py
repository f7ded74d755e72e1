# SPDX-License-Identifier: Apache-2.0
"""Webhooks in node.toml: what is wrong with one is said with its number, before the node starts, not its secrets."""

import base64
from pathlib import Path

import pytest

from junto.errors import InvalidInput
from junto.node.settings import read_settings
from junto.tasks.notices import KINDS, PROGRESS

KEY = bytes(range(24))


def _written(folder: Path, text: str, *, mode: int = 0o600) -> Path:
    keys = folder / "keys"
    keys.mkdir()
    (keys / "hook.key").write_text(f"whsec_{base64.b64encode(KEY).decode()}\n")
    (keys / "hook.key").chmod(mode)
    (folder / "node.toml").write_text(text)
    return folder / "node.toml"


HOOK = '[[webhook]]\nurl = "https://ops.example/x"\nsecret_file = "keys/hook.key"\n'


def test_a_webhook_hears_of_all_kinds_but_progress_unless_it_names_some(tmp_path: Path) -> None:
    other = HOOK.replace("/x", "/y") + 'kinds = ["step", "ended"]\n'
    first, second = read_settings(_written(tmp_path, HOOK + other)).webhooks
    assert (first.url, first.secret) == ("https://ops.example/x", KEY)
    assert first.kinds == frozenset(KINDS) - PROGRESS
    assert second.kinds == {"step", "ended"}


def test_there_are_none_by_default(tmp_path: Path) -> None:
    assert read_settings(tmp_path / "node.toml").webhooks == ()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (HOOK + HOOK, "webhook 2 has the url of an earlier one"),
        (HOOK.replace("https", "http"), "webhook 1: the webhook at ops.example is reached over plain http"),
        (HOOK.replace("hook.key", "none.key"), r"webhook 1: cannot read webhook secret .*none\.key"),
        (HOOK + 'kinds = ["end"]\n', r"Invalid enum value 'end' - at `\$\.webhook\[0\]\.kinds"),
        (HOOK + 'secret = "whsec_x"\n', "unknown field `secret`"),
        ("".join(HOOK.replace("/x", f"/{number}") for number in range(17)), "17 webhooks; at most 16"),
    ],
)
def test_a_webhook_that_cannot_work_is_named(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(InvalidInput, match=fault):
        read_settings(_written(tmp_path, text))


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="chmod 600"):
        read_settings(_written(tmp_path, HOOK, mode=0o644))
