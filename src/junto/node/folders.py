# SPDX-License-Identifier: Apache-2.0
"""The files that a user may have published: over the network those in the listed folders, on the node's machine any.

A caller that can write in the party's home has the party's keys, and may name any file. A command that is given the
home shows it by a file that it lays in `data/` under a random name, for the time of one call. A user with an
exported profile cannot, operator or not, and is held to the folders that `node.toml` lists.
"""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from junto.errors import Refused

PROOF = ".here-"
"""The beginning of such a file's name; 32 hexadecimal digits follow."""

_DIGITS = re.compile(r"[0-9a-f]{32}")


class Folders:
    """The folders of one node, with whatever their links lead to."""

    def __init__(self, folders: Sequence[Path], data: Path) -> None:
        """data: where proofs lie; also the one folder, if none is listed."""
        self._folders = tuple(folders) or (data,)
        self._data = data

    def proves(self, proof: str) -> bool:
        """True if whoever made the call can write in the home. A proof serves once."""
        if _DIGITS.fullmatch(proof) is None:
            return False
        try:
            (self._data / (PROOF + proof)).unlink()
        except OSError:
            return False
        return True

    def check(self, paths: Iterable[str | Path]) -> None:
        """Raises Refused unless each path, its links followed, lies in a folder; says nothing of what is there."""
        allowed = [os.path.realpath(folder) for folder in self._folders]
        for path in paths:
            place = os.path.realpath(os.path.abspath(path))
            if not any(place.startswith(folder.rstrip(os.sep) + os.sep) or place == folder for folder in allowed):
                raise Refused(
                    f"{path} lies outside the folders from which files are published over the network"
                    f" ({', '.join(map(str, self._folders))}): move it there, list its folder in data_folders of"
                    " node.toml, or publish it on the node's machine, with --home"
                )
