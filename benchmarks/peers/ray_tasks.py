# SPDX-License-Identifier: Apache-2.0
"""Ray: a node for each party, marked by a resource of its name; a task is one remote call at each. Prints JSON."""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from benchmarks.peers.pieces import IN_FLIGHT, PARTIES, STEPS, died, load, party_of, step, tell, trivial


def main() -> None:
    """Start a head and three nodes, measure, stop them."""
    os.environ["RAY_DEDUP_LOGS"] = "0"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = {party: cluster.add_node(num_cpus=1, resources={party: 1000}) for party in PARTIES}
    found: dict[str, Any] = {"version": ray.__version__, "tasks": {}, "died": {}}
    try:
        ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
        piece = ray.remote(max_retries=3)(trivial)
        at = {party: piece.options(resources={party: 1}) for party in PARTIES}

        def ask() -> None:
            values = ray.get([at[party].remote(number) for number, party in enumerate(PARTIES)])
            if values != [1, 2, 3]:
                raise ValueError("a wrong answer")

        load(ask, 4, 50)
        for in_flight, total in IN_FLIGHT.items():
            found["tasks"][in_flight] = load(ask, in_flight, total)
        for percent in (50, 90):
            number = STEPS * percent // 100
            with tempfile.TemporaryDirectory() as folder:
                log = Path(folder) / "steps"
                chain: Any = b""
                for index in range(STEPS):
                    one = ray.remote(max_retries=3)(step).options(resources={party_of(index): 1})
                    chain = one.remote(index, chain, str(log))

                def kill(party: str) -> None:
                    cluster.remove_node(nodes.pop(party), allow_graceful=False)

                def restart(party: str) -> None:
                    nodes[party] = cluster.add_node(num_cpus=1, resources={party: 1000}, wait=False)

                found["died"][percent] = died(log, number, kill, restart, lambda: ray.get(chain))  # noqa: B023  # used at once
            time.sleep(2)
    finally:
        ray.shutdown()
        cluster.shutdown()
    tell(found)


if __name__ == "__main__":
    main()
