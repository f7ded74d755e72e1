# SPDX-License-Identifier: Apache-2.0
"""Runs work that may hang, crash or eat memory in processes of its own, which can be ended at any moment.

It knows nothing of the work: it starts a module, hands over frames of bytes, and kills, and neither the node's sockets
nor its keys get into a child. Start at `pool.py`, the parent's side; `inside.py` is what a child does first.
"""
