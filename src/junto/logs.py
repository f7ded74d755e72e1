# SPDX-License-Identifier: Apache-2.0
"""Structured logs through the standard library's `logging`, so that Junto is silent in a program that asks for nothing.

Every logger is below `junto`. A program that wants the lines adds a handler there; the node's process does.
"""

import logging

import structlog

logging.getLogger("junto").addHandler(logging.NullHandler())

_SHARED: tuple[structlog.typing.Processor, ...] = (
    structlog.stdlib.filter_by_level,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
    structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
)


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger whose lines are an event and its fields."""
    wrapped: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(name), processors=_SHARED, wrapper_class=structlog.stdlib.BoundLogger
    )
    return wrapped
