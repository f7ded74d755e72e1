# SPDX-License-Identifier: Apache-2.0
"""Options that every command which asks a node has."""

from pathlib import Path
from typing import Annotated

import typer

Home = Annotated[Path | None, typer.Option(help="The party's folder.", envvar="JUNTO_HOME")]
User = Annotated[str | None, typer.Option(help="Which of its users.")]
Profile = Annotated[Path | None, typer.Option(help="A file from `junto user export`, in place of a folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]
