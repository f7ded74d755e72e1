# SPDX-License-Identifier: Apache-2.0
"""Decides what one party sends, and when, in a secure protocol, so that nobody learns more than the protocol says.

It never touches sockets, clocks, disks or randomness: events come in, instructions go out, random bytes are given.
Start at `machine.py`, then `maskedsum.py` (the simplest), then `threshold.py` with `shamir.py` and `groupkeys.py`.
"""
