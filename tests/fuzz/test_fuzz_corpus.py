# SPDX-License-Identifier: Apache-2.0
"""The kept inputs of each fuzzed target break no promise; `coverage_guided.py` goes on from them."""

from pathlib import Path

import pytest
from fuzz_targets import TARGETS

_CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("name", TARGETS)
def test_no_kept_input_breaks_a_promise(name: str) -> None:
    inputs = sorted((_CORPUS / name).iterdir())
    assert inputs
    for path in inputs:
        data = path.read_bytes()
        TARGETS[name](data)
        for at in range(0, len(data), 97):  # cut off, and with one byte changed
            TARGETS[name](data[:at])
            TARGETS[name](data[:at] + bytes([data[at] ^ 0x20]) + data[at + 1 :])
