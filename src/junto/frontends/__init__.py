# SPDX-License-Identifier: Apache-2.0
"""Decides what plan answers a question: each folder turns one language into steps.
It never runs a plan, never moves a byte between parties and never decides what is allowed.
Start at `sql/`, which answers SELECT.
"""
