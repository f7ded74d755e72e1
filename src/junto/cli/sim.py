# SPDX-License-Identifier: Apache-2.0
"""`junto sim`: consortia of real nodes under a virtual clock, with every kind of fault, in a process of their own."""

import subprocess
import sys
from typing import Annotated

import typer

from junto.errors import JuntoError


def sim(
    seeds: Annotated[int, typer.Option(help="How many runs.")] = 100,
    first: Annotated[int, typer.Option("--from", help="The first seed.")] = 1,
    parties: Annotated[int, typer.Option(help="2 to 7.")] = 3,
    faults: Annotated[str, typer.Option(help="all, none, or a list of kinds; an unknown one prints them.")] = "all",
    tasks: Annotated[int, typer.Option(help="Tasks of one run.")] = 200,
    fault_count: Annotated[int, typer.Option(help="Faults of one run.")] = 12,
    seconds: Annotated[float, typer.Option(help="Of virtual time, in which all begins.")] = 60.0,
    jobs: Annotated[int, typer.Option(help="Processes.")] = 1,
) -> None:
    """Simulate consortia with crashes, partitions and broken disks, and check what must hold.

    The same seed is the same run. One that fails is told as a story, then made as small as it goes.
    """
    words = {
        "--seeds": seeds,
        "--from": first,
        "--parties": parties,
        "--faults": faults,
        "--tasks": tasks,
        "--fault-count": fault_count,
        "--seconds": seconds,
        "--jobs": jobs,
    }
    line = [sys.executable, "-m", "junto.testing.sim", *(f"{name}={value}" for name, value in words.items())]
    code = subprocess.run(line, check=False).returncode  # noqa: S603  # our own interpreter and module
    if code == 2:
        raise typer.Exit(code)  # it has said what is wrong
    if code:
        raise JuntoError("a seed does not hold; its story is above")
