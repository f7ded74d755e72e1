# SPDX-License-Identifier: Apache-2.0
"""Peers doing what our tasks do, each in a process of its own: `python -m benchmarks.peers.ray_tasks` prints JSON."""
