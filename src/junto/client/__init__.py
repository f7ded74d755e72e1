# SPDX-License-Identifier: Apache-2.0
"""Decides how a user asks: connect to the party's own node, compile, explain, run, watch, read.

It never touches another party's node, a journal or an engine: everything goes through the user's own node.
Start at `desk.py`, which holds what `junto.connect()` returns; `question.py` holds a question and its answer.
"""

from junto.client.desk import Desk, connect
from junto.client.profile import Profile, find_profile
from junto.client.question import Answer, Question

__all__ = ["Answer", "Desk", "Profile", "Question", "connect", "find_profile"]
