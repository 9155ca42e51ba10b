"""A Ray cluster of local nodes on 127.0.0.1; ``RAY_PACKAGES`` names a folder Ray is installed in.

One program: the nodes, runs on them and, where asked for, the end of one node under way, in whose
place another one comes before the next run.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

from batch.engines.engine import Engine
from batch.engines.ray import RayEngine
from batch.job import Job
from batch.options import Options
from batch.progress import Progress
from batch.run import run

STORE_BYTES = 100 << 20
NODES, PART = 2, 2000
NODE = {
    "node_ip_address": "127.0.0.1",
    "object_store_memory": STORE_BYTES,
    "include_dashboard": False,
}


def cluster_of(nodes: int) -> Any:
    """``nodes`` of one CPU each, and a connection to them."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **NODE})
    for _ in range(nodes - 1):
        _add_a_node(cluster)
    cluster.wait_for_nodes()
    here = NODE["node_ip_address"]
    ray.init(
        address=cluster.address, _node_ip_address=here, log_to_driver=False, logging_level="error"
    )
    return cluster


def main(bundle: str, store: str, *runs: str) -> None:
    """``runs``: ``kill:INPUT:OUTPUT`` or ``whole:INPUT:OUTPUT``."""
    cluster = cluster_of(NODES)

    def engine(job: Job, workers: int) -> Engine:
        return RayEngine(job, workers)

    for each in runs:
        how, source, output = each.split(":")
        options = Options(Path(bundle), store, source, output, workers=NODES, part_candidates=PART)
        killer = threading.Thread(target=_end_a_node, args=(cluster, Path(output)), daemon=True)
        if how == "kill":
            killer.start()
        run(options, engine, Progress())
        if how == "kill":
            killer.join()
            _add_a_node(cluster)
            cluster.wait_for_nodes()
    import ray

    ray.shutdown()
    cluster.shutdown()


def _add_a_node(cluster: Any) -> None:
    cluster.add_node(num_cpus=1, **{k: v for k, v in NODE.items() if k != "include_dashboard"})


def _end_a_node(cluster: Any, output: Path) -> None:
    """Once something is written."""
    while not (list(output.glob("part-*")) or list(output.glob("_work/*/scores-*"))):
        time.sleep(0.05)
    node = next(iter(cluster.worker_nodes))
    cluster.remove_node(node, allow_graceful=False)
    print("a node was ended", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
