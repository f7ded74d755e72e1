# SPDX-License-Identifier: Apache-2.0
"""Decides who is asking, and whether they may: names, certificates, the charter, signatures, rules and grants.

Never touches a socket, a disk or a clock: bytes and times are arguments, and `node/` reads and keeps the files.
Start at `names.py`, then `charter.py`, then `identity.verify`; `rules.py` is where a question is judged.
"""
