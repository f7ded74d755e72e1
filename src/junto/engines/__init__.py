# SPDX-License-Identifier: Apache-2.0
"""Decides how a party's own data is read and how one fragment of SQL runs on it, within limits of memory and disk.

It never touches rules, other parties or the network, and no message of its errors holds a value of the data.
Start at `base.py`, the seam every engine fits; `duckdb.py` is the engine at hand, `supervised.py` runs it in children
of a node, `sources.py` reads what is published.
"""
