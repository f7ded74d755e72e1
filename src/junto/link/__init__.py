# SPDX-License-Identifier: Apache-2.0
"""The link decides how bytes travel between two nodes: frames, calls, streams, deadlines, who is at the other end.

It never touches what a call means, the disk, or who may do what: handlers and `verify_peer` are arguments.
Start at `frames.py` (what is on the wire), then `session.py` (one side of a link), `connection.py` and `links.py`.
"""
