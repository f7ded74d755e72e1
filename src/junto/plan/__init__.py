# SPDX-License-Identifier: Apache-2.0
"""Decides what a plan may look like, what it asks of each participant, and who learns what from it.
It never runs a step, opens anything, or judges by rules: it derives needs and disclosures, others decide on them.
Start at `steps.py`; `fragment.py` reads one party's SQL, `review.py` the whole plan, `disclosure.py` who learns.
"""
