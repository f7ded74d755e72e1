# SPDX-License-Identifier: Apache-2.0
"""Organisations that will not hand over their data compute one answer together."""

__version__ = "0.1.0"
