# SPDX-License-Identifier: Apache-2.0
"""The server asks rounds of messages of three nodes, then hands one value from node to node, twenty times."""

import json
import os
import time
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

ROUNDS = {1: 3, 10: 10}  # a process starts for each message at each node: more would take minutes
WAIT_SECONDS = 90.0

server = ServerApp()
client = ClientApp()


@client.query()  # type: ignore[untyped-decorator]  # Flower is not there when types are checked
def answer(message: Message, context: Context) -> Message:
    """One piece of work: say which party this is; a numbered one takes its time and gives a megabyte."""
    asked = message.content["asked"]
    reply: dict[str, Any] = {"party": str(context.node_config["party"])}
    if asked["number"] >= 0:
        time.sleep(0.05)
        with Path(str(asked["log"])).open("a") as log:
            log.write(f"{asked['number']}\n")
        reply["value"] = bytes([asked["number"]]) * int(asked["bytes"])
        time.sleep(0.5 if asked["number"] == asked["slow"] else 0)
    return Message(content=RecordDict({"gave": ConfigRecord(reply)}), reply_to=message)


@server.main()  # type: ignore[untyped-decorator]  # the same
def main(grid: Grid, context: Context) -> None:
    """Measure, and write what was found as JSON."""
    config = context.run_config
    while len(nodes := list(grid.get_node_ids())) < 3:
        time.sleep(0.1)
    found: dict[str, Any] = {"tasks": {}}
    parties = {str(r.content["gave"]["party"]): r.metadata.src_node_id for r in _round(grid, nodes)}
    for in_flight, total in ROUNDS.items():
        seconds: list[float] = []
        began = time.perf_counter()
        for _ in range(total // in_flight):
            started = time.perf_counter()
            replies = _round(grid, nodes * in_flight)
            if len(replies) != len(nodes) * in_flight or any(reply.has_error() for reply in replies):
                raise ValueError("a wrong answer")
            seconds += [time.perf_counter() - started] * in_flight
        rate = total / (time.perf_counter() - began)
        seconds.sort()
        found["tasks"][in_flight] = {"rate": rate, "p50": seconds[len(seconds) // 2], "p99": seconds[-1]}
    _tell(str(config["found"]), found)
    names = sorted(parties)
    value = b""
    for number in range(int(config["steps"])):
        asked = {"number": number, "log": config["log"], "bytes": config["step-bytes"], "slow": 10, "value": value}
        replies = _round(grid, [parties[names[number % 3]]], asked)
        if not replies or replies[0].has_error():
            found["ended"] = "an error reply" if replies else "no reply in time"
            break
        value = bytes(replies[0].content["gave"]["value"])
    else:
        found["ended"] = "right"
    found["ended_at"] = time.time()
    _tell(str(config["found"]) + ".end", found)


def _round(grid: Grid, nodes: list[int], asked: dict[str, Any] | None = None) -> list[Message]:
    content = {"asked": ConfigRecord(asked or {"number": -1})}
    messages = [Message(content=RecordDict(content), message_type="query", dst_node_id=node) for node in nodes]
    return list(grid.send_and_receive(messages, timeout=WAIT_SECONDS))


def _tell(path: str, found: dict[str, Any]) -> None:
    Path(path + ".part").write_text(json.dumps(found))
    os.replace(path + ".part", path)
