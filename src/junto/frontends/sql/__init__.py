# SPDX-License-Identifier: Apache-2.0
"""Decides which plan answers one SELECT over the datasets of several parties, or names the clause it cannot answer.
It never reads data, runs a step or judges by rules; what it leaves open, every owner's node decides anew in `plan/`.
Start at `compiler.py`; `names.py` finds tables, `scope.py` binds and flattens, `measures.py` splits aggregates.
"""

from junto.frontends.sql.compiler import compile_sql

__all__ = ["compile_sql"]
