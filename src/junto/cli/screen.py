# SPDX-License-Identifier: Apache-2.0
"""The one way from a command to the terminal: whatever is written passes `plain`, drawn tables and progress too.

While a command runs, standard output and error stand behind a `PlainStream`, so that `print` is safe everywhere. What
rich draws goes beneath that, as its own escape sequences must reach the terminal: a `Screen` makes the texts plain
itself. Answers as CSV, JSON or Parquet are bytes, and go to files and pipes unchanged.
"""

import io
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import BinaryIO, TextIO, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from junto.plain import plain

_PIPED_WIDTH = 200


class PlainStream(io.TextIOBase):
    """A text stream in front of another, which gets plain text only."""

    def __init__(self, beneath: TextIO) -> None:
        self.beneath = beneath

    def write(self, text: str) -> int:
        """Write the text, made plain."""
        self.beneath.write(plain(text))
        return len(text)

    def flush(self) -> None:
        """Flush the stream beneath."""
        self.beneath.flush()

    def fileno(self) -> int:
        """The descriptor beneath."""
        return self.beneath.fileno()

    def isatty(self) -> bool:
        """False: escape sequences written here reach no terminal. `is_terminal` tells what is beneath."""
        return False

    def writable(self) -> bool:
        """True."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a property here, an attribute there
        """The encoding beneath."""
        return self.beneath.encoding

    @property
    def buffer(self) -> BinaryIO:
        """The bytes beneath, for data that is written exactly."""
        return self.beneath.buffer


@contextmanager
def plain_output() -> Iterator[None]:
    """Standard output and error take plain text only, while the context is open."""
    out, err = cast(TextIO, PlainStream(sys.stdout)), cast(TextIO, PlainStream(sys.stderr))
    with redirect_stdout(out), redirect_stderr(err):
        yield


class Screen(Console):
    """A rich console whose texts are plain. Its own control codes pass."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of what is drawn."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(plain(segment.text), segment.style)


def beneath(stream: TextIO) -> TextIO:
    """The stream that a `PlainStream` stands before, or the stream itself."""
    return stream.beneath if isinstance(stream, PlainStream) else stream


def is_terminal(stream: TextIO) -> bool:
    """True if the stream is a terminal."""
    return beneath(stream).isatty()


def screen(stream: TextIO | None = None, *, wide: bool = False) -> Screen:
    """A console on a stream, standard output if none is named, that reads no markup.

    wide: nobody's window limits the lines where they do not go to a terminal.
    """
    place = beneath(sys.stdout if stream is None else stream)
    width = _PIPED_WIDTH if wide and not place.isatty() else None
    return Screen(file=place, width=width, highlight=False, markup=False)
