# SPDX-License-Identifier: Apache-2.0
"""Decides how the rooms are tried without a network: in-memory drivers with seeded, arbitrary orders of delivery.

It never touches production: nothing but tests and benchmarks imports it.
Start at `secure.py`, which runs all parties of a secure protocol and keeps the transcript.
"""
