# SPDX-License-Identifier: Apache-2.0
"""The last line of a test run is its result.

Hypothesis's caches hold on to DuckDB's objects until the interpreter is torn down, and DuckDB's binding then reports
them as leaked, after the result. So the process ends as soon as the result is printed, without the teardown.
"""

import os
import sys

import pytest

_SESSION = pytest.StashKey[pytest.Session]()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Keep what holds the exit code."""
    session.config.stash[_SESSION] = session


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End the process, everything having been reported."""
    if _SESSION in config.stash:
        config.get_terminal_writer().flush()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(config.stash[_SESSION].exitstatus))
