# SPDX-License-Identifier: Apache-2.0
"""Finds who asks, and reaches that party's node."""

import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from junto.errors import InvalidInput, JuntoError, Unavailable

if TYPE_CHECKING:
    from junto.link.connection import Link
    from junto.trust.names import Name
    from junto.trust.profile import Profile as File


class Profile:
    """A user of one party, and the addresses of its node."""

    def __init__(self, file: "File", home: Path | None = None) -> None:
        """home: the party's folder, if the profile was found in it."""
        self._file = file
        self._home = home
        self._identity = file.identity(time.time())

    @property
    def name(self) -> "Name":
        """The user's name."""
        return self._identity.name

    @contextmanager
    def proof(self) -> Iterator[str]:
        """Digits that show the node, while the context is open, that we can write in its home; empty if we cannot."""
        digits = secrets.token_hex(16)
        place = self._home / "data" / f".here-{digits}" if self._home is not None else None
        try:
            if place is not None:
                place.touch(mode=0o600, exist_ok=False)
        except OSError:
            place = None
        try:
            yield digits if place is not None else ""
        finally:
            if place is not None:
                place.unlink(missing_ok=True)

    async def dial(self) -> "Link":
        """A link to the node. Raises Unavailable with every address tried, or why the node does not want us."""
        from junto.link.dial import Proxies, dial, first_open, here_of
        from junto.link.settings import LinkSettings
        from junto.trust.names import parse_address

        addresses = [parse_address(text) for text in self._file.addresses]
        settings = LinkSettings.for_user(len(addresses))
        here = here_of(self._identity, self._file.charter(), f"user-{os.getpid()}-{time.time_ns()}")
        proxies = Proxies.of(os.environ)
        problems: list[JuntoError] = []
        link = await first_open(
            addresses,
            lambda address: dial(here, address, settings=settings, expected=self.name.party, proxies=proxies),
            problems.append,
        )
        if link is not None:
            return link
        for problem in problems:
            if not isinstance(problem, Unavailable):
                raise problem
        why = "; ".join(str(problem) for problem in problems)
        elsewhere = (
            "" if self._home is not None else ", or if it listens elsewhere now, ask for a new `junto user export`"
        )
        raise Unavailable(
            f"the node of {self.name.party} does not answer ({why}); `junto node start` runs it{elsewhere}"
        )


def find_profile(
    home: str | Path | None = None,
    user: str | None = None,
    profile: str | Path | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Profile:
    """The profile in a file, or of a user of a party's folder: the one named, or the only one.

    Raises InvalidInput that says which there are.
    """
    from junto.trust import profile as files

    folder = _home(home, environment) if profile is None else None
    path = Path(profile or "") if folder is None else _user_file(folder, user)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    try:
        return Profile(files.read(data), folder)
    except JuntoError as error:
        raise InvalidInput(f"{path}: {error}") from error


def _home(given: str | Path | None, environment: Mapping[str, str]) -> Path:
    if given is not None or environment.get("JUNTO_HOME"):
        return Path(given or environment["JUNTO_HOME"])
    folder = Path(environment.get("HOME") or Path.home()) / ".junto"
    homes = sorted(found.parent for found in folder.glob("*/users"))
    if len(homes) == 1:
        return homes[0]
    if not homes:
        raise InvalidInput(f"no party lives under {folder}; give its folder with --home, or a file with --profile")
    names = ", ".join(home.name for home in homes)
    raise InvalidInput(f"which party? {folder} has {names}: add --home {homes[0]} or set JUNTO_HOME")


def _user_file(home: Path, user: str | None) -> Path:
    users = sorted((home / "users").glob("*/profile.json"))
    if user is not None:
        users = [path for path in users if path.parent.name == user]
    match users:
        case [only]:
            return only
        case []:
            whom = f"no user {user!r}" if user is not None else "no users"
            raise InvalidInput(f"{home} has {whom}; `junto user add NAME` makes one")
        case several:
            names = ", ".join(path.parent.name for path in several)
            raise InvalidInput(f"who asks? {home} has the users {names}: add --user NAME")
