# SPDX-License-Identifier: Apache-2.0
"""`junto task watch` and webhooks beside real nodes that are killed: every end is told, once to whoever watches."""

import base64
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pytest
from parties import Parties, parties

from junto.testing.until import until
from junto.types import TaskId

pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),  # a node outlives its command
]

_QUESTION = "SELECT k, SUM(v) AS s FROM t GROUP BY k ORDER BY k"


@dataclass
class _Receiver:
    """What a webhook was told: bodies by webhook-id, and how often."""

    url: str = ""
    failing: bool = False
    told: dict[str, dict[str, str]] = field(default_factory=dict)

    def ends_of(self, task: str) -> list[str]:
        return [data["id"] for data in list(self.told.values()) if data["kind"] == "ended" and data["task"] == task]


@contextmanager
def _receiver() -> Iterator[_Receiver]:
    receiver = _Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if not receiver.failing:
                receiver.told[self.headers["webhook-id"]] = json.loads(body)["data"]
            self.send_response(503 if receiver.failing else 204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/junto"
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def receiver() -> Iterator[_Receiver]:
    with _receiver() as found:
        yield found


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, receiver: _Receiver) -> Iterator[Parties]:
    with parties(("ann", "bea"), tmp_path_factory.mktemp("two")) as running:
        home = running.home("ann")
        key = home / "keys" / "hook.key"
        key.write_text(f"whsec_{base64.b64encode(bytes(32)).decode()}\n")
        key.chmod(0o600)
        settings = f'threads = 1\n\n[[webhook]]\nurl = "{receiver.url}"\nsecret_file = "keys/hook.key"\n'
        (home / "node.toml").write_text(settings)
        running.type("ann", "node", "stop")
        running.whole()
        running.publish("bea", "t", pa.table({"id": list(range(40)), "k": [1, 2] * 20, "v": list(range(40))}))
        yield running


def _asked(running: Parties) -> TaskId:
    running.whole()
    with running.desk("ann") as desk:
        return desk.sql(_QUESTION).run(deadline="20s").task


@contextmanager
def _watching(running: Parties, lines: list[dict[str, str]]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "junto", "task", "watch", "--json", "--home", str(running.home("ann"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        stdout = process.stdout

        def read() -> None:
            lines.extend(json.loads(line) for line in stdout)

        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield process
        finally:
            process.kill()
            reader.join()


def test_a_watch_and_a_webhook_hear_of_every_end_though_the_node_is_killed_in_between(
    two: Parties, receiver: _Receiver
) -> None:
    lines: list[dict[str, str]] = []
    with _watching(two, lines) as watch:

        def ends(task: TaskId) -> list[str]:
            return [one["id"] for one in list(lines) if one["kind"] == "ended" and one["task"] == task]

        # The watch says nothing before something happens; so ask until it does.
        until(lambda: _asked(two) and lines, "the watch has begun")
        first = _asked(two)
        until(lambda: ends(first), "the watch tells of the first end")
        until(lambda: receiver.ends_of(first), "the webhook hears of the first end")
        receiver.failing = True
        second = _asked(two)
        two.signal("ann", signal.SIGKILL)
        receiver.failing = False
        third = _asked(two)
        until(lambda: ends(third), "the watch tells of what happened after the restart")
        # What the webhook would not take before the kill waits for its time; a test that arrives has it sent now.
        tested = two.type("ann", "node", "hook", "test")
        assert tested.code == 0, tested.err
        assert "answered 204" in tested.out
        for task in (first, second, third):
            until(lambda: receiver.ends_of(task), "the webhook hears of every end")  # noqa: B023  # used at once
            assert receiver.ends_of(task) == ends(task)  # the same id, told once
        listed = two.type("ann", "node", "hook", "ls", "--json")
        (hook,) = json.loads(listed.out)
        assert (hook["pending"], hook["failures"], hook["gone"]) == (0, 0, False)
        assert hook["to"] == receiver.url.removesuffix("/junto")
        watch.send_signal(signal.SIGINT)
        assert watch.wait(10) == 0
        assert watch.stderr is not None
        said = watch.stderr.read()
        assert "Traceback" not in said


def test_a_watch_of_kinds_that_are_none_says_which_there_are(two: Parties) -> None:
    two.whole()
    printed = two.type("ann", "task", "watch", "--kind", "end")
    assert printed.code == 1
    assert "ended" in printed.err
    both = two.type("ann", "task", "watch", "01jtask", "--kind", "ended")
    assert (both.code, "leave out the id" in both.err) == (1, True)
