# SPDX-License-Identifier: Apache-2.0
"""Decides when things happen: the only place where sockets, disk, clock, randomness and child processes meet the rooms.

Never touches policy, protocol or plan: it feeds events to the rooms and performs the instructions they return.
Start at `home.py` for what a node keeps, then `runner.py` for how a task is carried along.
"""
