# SPDX-License-Identifier: Apache-2.0
"""Decides what happened: signed statements in one append-only log per node, which anyone can check afterwards.
It never judges what a statement's body means, and never opens a socket.
Start at `statement.py` (what is signed), then `tree.py` and `checkpoint.py` (what binds it), `store.py` (the file).
"""
