# SPDX-License-Identifier: Apache-2.0
"""Decides how a task lives: who has offered, what is contracted, what is waited for, and how it ends.

It never touches sockets, clocks, disks or randomness: events come in, instructions go out, and `node/` performs them.
Start at `events.py`, then `state.py`, then `instructions.py`; `bodies.py` holds what parties sign.
"""
