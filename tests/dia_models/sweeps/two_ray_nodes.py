"""A sweep on a Ray cluster of two nodes, one of which is killed as soon as a run on each has begun.

`python two_ray_nodes.py SWEEP.toml OUT`
"""

import os
import sys
import threading
import time
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from ray.cluster_utils import Cluster

import cli.common.main
import cli.train


def main() -> int:
    out = Path(sys.argv[2])
    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=small)
    node = cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    os.environ["RAY_ADDRESS"] = cluster.address
    threading.Thread(target=kill_half_way, args=(cluster, node, out), daemon=True).start()
    command = ["sweep", sys.argv[1], "--scale", "laptop", "--seeds", "0-1", "--set", "epochs=4", "--executor", "ray"]
    try:
        return cli.common.main.run(cli.train.app, [*command, "--out", str(out)])
    finally:
        cluster.shutdown()


def kill_half_way(cluster: Cluster, node: object, out: Path) -> None:
    while len(list(out.glob("*/last.ckpt"))) < 2:
        time.sleep(0.02)
    finished = len(list(out.glob("*/result.json")))
    cluster.remove_node(node, allow_graceful=False)
    sys.stdout.write(f"killed after {finished} runs, {len(cluster.list_all_nodes())} node left\n")


if __name__ == "__main__":
    sys.exit(main())
