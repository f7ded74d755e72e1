# SPDX-License-Identifier: Apache-2.0
"""Decides what data there is: which datasets, in which version, under which rules, and what of them is one joint table.
It never reads the data, opens a file or a socket, or judges a question: it holds what owners have signed.
Start at `dataset.py`, then `spec.py` for the file an owner writes and `view.py` for what a node knows of all parties.
"""
