# SPDX-License-Identifier: Apache-2.0
"""Runs whole consortia of real nodes under a virtual clock, with faults that a seed draws, and checks what must hold.

It never touches sockets, threads or the wall clock: the network, the disks and the clocks are its own, all else is the
code that production runs. Start at `world.py`, which holds the nodes; `run.py` runs a seed, `faults.py` lists faults.
"""
