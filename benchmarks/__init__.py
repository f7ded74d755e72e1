# SPDX-License-Identifier: Apache-2.0
"""Figures beside their peers. `python -m benchmarks` runs them all; each file also runs alone."""
