"""Does the memory of the workers stay flat over many runs? Prints it after every tenth run.

Short real runs with TensorFlow on the local engine, each of another configuration, as a sweep
has them: every one is traced anew, which TensorFlow never gives back. Workers that have grown too
much are replaced between two runs (study/workers/worker.py).

    python benchmarks/worker_memory.py [--runs 200] [--jobs 2] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from study.data import dataset as data
from study.space.search_space import Validation
from study.training.run import Run
from study.workers.engine import RunFailed, RunFinished
from study.workers.local_cluster import local_engine

EVERY = 10


def run_of(number: int, fingerprint: str) -> Run:
    """A run of one short epoch whose configuration no other one has."""
    params = {"filters": 4, "k1": 3, "k2": 3, "dense": 8 + number, "dropout": 0.1}
    validation = Validation("holdout")
    return Run(tuple(params.items()), 0, 1, 1, 100, validation, 1, fingerprint)


def sizes(pids: Iterable[int]) -> list[int]:
    """Megabytes of these processes, the largest first."""
    found = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(pid).memory_info().rss // 2**20)
    return sorted(found, reverse=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    digits = data.load("digits")
    seen, pids = [], set()
    began = time.monotonic()
    with closing(local_engine(digits, arguments.jobs, 1, None)) as engine:
        sent = done = 0
        while done < arguments.runs:
            while sent < min(done + arguments.jobs, arguments.runs):
                engine.submit(sent, run_of(sent, digits.fingerprint))
                sent += 1
            event = engine.next_event()
            if isinstance(event, RunFailed):
                raise SystemExit(f"run {event.key} failed: {event.reason}")
            if not isinstance(event, RunFinished):
                continue
            done += 1
            workers = set(engine._client.run(_pid).values())
            pids |= workers
            if done % EVERY == 0:
                line = {"runs": done, "MB": sizes(workers), "processes": len(pids)}
                line["seconds"] = round(time.monotonic() - began)
                seen.append(line)
                print(json.dumps(line), flush=True)
    largest = [line["MB"][0] for line in seen[1:]] or [line["MB"][0] for line in seen]
    spread = max(largest) / min(largest) - 1
    print(f"the largest worker varied by {100 * spread:.0f} %; {len(pids)} processes in all")
    if arguments.json:
        arguments.json.write_text(json.dumps(seen, indent=2) + "\n")


def _pid() -> int:
    return psutil.Process().pid


if __name__ == "__main__":
    main()
