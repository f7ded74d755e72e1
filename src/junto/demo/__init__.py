# SPDX-License-Identifier: Apache-2.0
"""Runs the main job for a newcomer: four organisations on one machine, real flights, every answer checked.

It decides nothing that a user could not: it types the same commands and calls the same client.
Start at `run.py`; `flights.py` makes the data, `consortium.py` starts nodes, `oracle.py` computes what must come out.
"""
