# SPDX-License-Identifier: Apache-2.0
"""Ids and values that every room shares."""

from collections.abc import Callable
from typing import NewType

PartyId = NewType("PartyId", str)
"""An organisation's name in its consortium: lower-case letters, digits and hyphens."""

NodeId = NewType("NodeId", str)
"""A process of a party, unique within it."""

TaskId = NewType("TaskId", str)
"""One run of one question: 26 characters that sort by time."""

StepId = NewType("StepId", str)
"""One step of a plan, unique within it."""

DatasetName = NewType("DatasetName", str)
"""What owners call a dataset; the same name at several parties is one joint table."""

Digest = NewType("Digest", str)
"""`sha256:` and 64 hexadecimal digits."""

RandomBytes = Callable[[int], bytes]
"""Cryptographic randomness as an argument; production passes `secrets.token_bytes`."""
