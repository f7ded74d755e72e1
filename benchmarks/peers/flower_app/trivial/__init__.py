# SPDX-License-Identifier: Apache-2.0
"""A Flower app: see `../../flower_tasks.py`."""
