# SPDX-License-Identifier: Apache-2.0
"""Signs of life that the operating system takes back when a process dies: a takeover need not wait for the lease then.

A holder lights the beacon of its epoch before it takes the lease, so a challenger that finds it out knows that the
holder is dead. One that is lit proves nothing: a holder that hangs keeps it, and the time of the lease decides.
"""

import fcntl
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Protocol


class Beacon(Protocol):
    """One beacon for each epoch of a lease. Raises StorageFailed."""

    def light(self, epoch: int) -> bool:
        """Light it until this process ends. False if another process has lit it."""

    def is_out(self, epoch: int) -> bool:
        """True if the process that lit the beacon is gone for certain."""

    def put_out(self, epoch: int) -> None:
        """End the process that lit it, if that can be done from here: it hangs, and what it holds locked is needed."""


class FileBeacon:
    """Locks (flock) of files beside a journal's file, on one machine, also across containers."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lit: dict[int, int] = {}  # epoch → descriptor

    def light(self, epoch: int) -> bool:
        """See `Beacon.light`."""
        if epoch in self._lit:
            return True
        descriptor = os.open(self._file(epoch), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not _locked(descriptor, fcntl.LOCK_EX):
            os.close(descriptor)
            return False
        self._lit[epoch] = descriptor
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        for earlier in range(max(epoch - 8, 0), epoch - 1):  # the last one may still be looked at
            with suppress(FileNotFoundError):
                self._file(earlier).unlink()
        return True

    def is_out(self, epoch: int) -> bool:
        """See `Beacon.is_out`."""
        try:
            descriptor = os.open(self._file(epoch), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return _locked(descriptor, fcntl.LOCK_SH)
        finally:
            os.close(descriptor)

    def put_out(self, epoch: int) -> None:
        """See `Beacon.put_out`. Only a process that has this very file open is ended."""
        try:
            beacon = self._file(epoch).stat()
            pid = int(self._file(epoch).read_text())
            opened = [os.stat(file) for file in Path(f"/proc/{pid}/fd").iterdir()]
        except (OSError, ValueError):
            return  # it is gone, or where we cannot see it
        if pid != os.getpid() and any(os.path.samestat(beacon, one) for one in opened):
            os.kill(pid, signal.SIGKILL)

    def _file(self, epoch: int) -> Path:
        return self._path.with_name(f"{self._path.name}.lease-{epoch}")


def _locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
