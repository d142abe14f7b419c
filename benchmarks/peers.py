"""What a user would pick instead, beside the study and the tutorial: time, work and answer.

    python benchmarks/peers.py --space digits             (make bench)
    python benchmarks/peers.py --space mnist --stages 1   (make bench-mnist)

Every contender searches the same space on the same data with the same network, in a process of its
own, on a machine that it has to itself; they take turns, with and without logging to a local MLflow
server. The budget of the others is what the sweep needs at most: 12 configurations of three runs
each on the tutorial's space; 36 runs for those that train a trial once. Hyperband's follows from
its longest run. Then every declared configuration is trained anew with ten fresh seeds and splits:
`retrain.py`. Seconds count from the first import to the declared configuration.

Records are lines of a file: started again, only what is missing is done, and a search that was
killed goes on. A contender that cannot be used has a line that says why.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import recorded
from job import Job, Task
from mlflow_server import mlflow_server
from retrain import SEEDS, worth
from table import show
from task import add_options, job_of, settled

CONTENDERS = (
    "tutorial",
    "study",
    "KerasTuner RandomSearch",
    "KerasTuner Hyperband",
    "KerasTuner BayesianOptimization",
    "Optuna TPE",
    "Ray Tune ASHA",
)
PACKAGES = ("tensorflow", "keras", "keras-tuner", "optuna", "optuna-integration", "ray", "mlflow")
HERE = Path(__file__).resolve().parent


def turns(options: argparse.Namespace, task: Task) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Whose turn it is, round by round, with what identifies the record."""
    work = options.work / "onednn" if options.onednn else options.work
    for turn in range(options.rounds):
        for logging in {"both": (False, True), "with": (True,), "without": (False,)}[options.log]:
            for name in options.contender or CONTENDERS:
                job = job_of(task, name, work, turn, logging=logging)
                stages = options.stages if name == "tutorial" else None
                mark = {"contender": name, "logging": logging, "round": turn, "stages": stages}
                mark |= {"oneDNN": "1"} if options.onednn else {}
                yield replace(job, stages=stages), mark | {"task": asdict(task)}


def done(records: Path, mark: dict[str, Any]) -> bool:
    """Whether this turn has a record; what failed is tried again."""
    alike = {"oneDNN": None} | mark
    found = (
        record
        for record in recorded.read(records)
        if alike.items() <= ({"oneDNN": None} | record).items()
    )
    return any("failed" not in record for record in found)


def work(job: Job, *, logging: bool, onednn: bool, limit: float | None) -> dict[str, Any]:
    """Let a contender work in a process of its own; its record, or why it has none."""
    record = Path(job.folder) / "record.json"
    record.unlink(missing_ok=True)
    log = Path(job.folder) / "log.txt"
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "RAY_USAGE_STATS_ENABLED": "0"}
    quiet |= {"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONPATH": f"{HERE.parent}:{HERE}"}
    quiet |= {"TF_ENABLE_ONEDNN_OPTS": "1"} if onednn else {}
    with (
        tempfile.TemporaryDirectory() as folder,
        mlflow_server(Path(folder)) if logging else nullcontext() as uri,
        log.open("a") as said,
    ):
        command = [sys.executable, str(HERE / "contenders.py"), replace(job, uri=uri).to_json()]
        how = {"stdout": said, "stderr": said, "env": os.environ | quiet}
        contender = subprocess.Popen(command, start_new_session=True, **how)
        try:
            code = contender.wait(limit)
        except subprocess.TimeoutExpired:
            return {"failed": f"not done after {limit:.0f} s"}
        finally:
            _end(contender)
    found = recorded.read_whole(record)
    if code or found is None:
        return {"failed": last_words(log) or f"exit code {code}"}
    return found if found["passes"] else {"failed": f"nothing was trained: {last_words(log)}"}


def _end(contender: subprocess.Popen[bytes]) -> None:
    """Leave nothing of a contender to run beside the next one."""
    with suppress(ProcessLookupError):
        os.killpg(contender.pid, signal.SIGKILL)
    contender.wait()


def last_words(log: Path) -> str:
    """The last line of a traceback."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def retrain(task: Task, data: str, records: Path, seeds: int) -> None:
    """Train anew whatever was declared."""
    for record in list(recorded.read(records)):
        if record.get("task") == asdict(task) and record.get("configuration"):
            worth(task, record["configuration"], data, records, seeds)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_options(parser)
    parser.add_argument("--rounds", type=int, default=1, help="searches of each, by seed (1)")
    parser.add_argument("--contender", action="append", choices=CONTENDERS, help="only this one")
    parser.add_argument("--log", choices=("both", "with", "without"), default="both")
    parser.add_argument("--stages", type=int, help="of the tutorial; the rest is extrapolated")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="to train anew with (10; 0: not)")
    parser.add_argument(
        "--onednn", action="store_true", help="switch oneDNN on for all, where TensorFlow does not"
    )
    parser.add_argument("--limit", type=float, help="seconds a contender may take")
    parser.add_argument("--records", type=Path, help="a file in benchmarks/records")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # a contender is ended on the way out
    task = settled(options)
    records = options.records or HERE / "records" / f"peers-{Path(task.space).stem}.jsonl"
    about = recorded.machine(*PACKAGES)
    for job, mark in turns(options, task):
        if done(records, mark):
            continue
        what = f"{job.contender}, {'with' if mark['logging'] else 'without'} logging"
        print(f"round {mark['round'] + 1}: {what}", flush=True)
        found = work(job, logging=mark["logging"], onednn=options.onednn, limit=options.limit)
        recorded.append(records, mark | found | {"machine": about})
        if "failed" not in found and job.stages is None:
            shutil.rmtree(job.folder)  # what is measured again begins anew
    if options.seeds:
        data = job_of(task, "study", options.work, 0, logging=False).data
        retrain(task, data, records, options.seeds)
    show(task, records, options.seeds)


if __name__ == "__main__":
    main()
