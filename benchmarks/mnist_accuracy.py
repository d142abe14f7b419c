"""How far a search space's start gets on MNIST's test set: single networks, and their averages.

    python benchmarks/mnist_accuracy.py --data mnist.npz --work accuracy --members 1 2 3 4 5 6

Members are trained one after the other with different seeds, on the same part of the training
images; the rest chooses the epoch of each, and says which member is the best. Two processes with
other members each may share a work folder: a member is a file there, and the table is made of all
that are there. A killed one goes on where it was, from the checkpoint of its last epoch.
`--table` prints the table alone; `--record` writes it to records/mnist_accuracy.json.
"""

import argparse
import itertools
import json
import math
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import recorded
from numpy.typing import NDArray
from scipy.stats import t

sys.path.insert(0, str(Path(__file__).parents[1]))

from study.data import dataset as data
from study.data.dataset import Dataset
from study.files import write_whole
from study.space import file as space_file
from study.space.search_space import Validation
from study.training.checkpoint import FolderCheckpoints
from study.training.run import Epoch, Run
from study.training.train import start_tensorflow, train

RECORD = Path(__file__).with_name("records") / "mnist_accuracy.json"
PACKAGES = ("tensorflow", "keras", "numpy")
MOST = 4000  # averages of one size that are looked at
SPLIT_SEED = 2026  # of the images that choose, the same for all members

Numbers = NDArray[Any]


def run_of(args: argparse.Namespace, number: int, dataset: Dataset) -> Run:
    searched = space_file.load(args.space)
    params = {**searched.start, "restore_best_weights": bool(args.holdout)}
    return Run(
        params=tuple(params.items()),
        repeat=0,
        seed=1000 + number,
        epochs=args.epochs or searched.epochs,
        batch_size=searched.batch_size,
        validation=(
            Validation("holdout", args.holdout, seed=SPLIT_SEED)
            if args.holdout
            else Validation("none")
        ),
        threads=args.threads,
        data_fingerprint=dataset.fingerprint,
    )


def train_member(run: Run, number: int, dataset: Dataset, work: Path) -> None:
    """Train one member and write its probabilities, then its record: the record says it is done."""
    store = FolderCheckpoints(work / "checkpoints")
    busy = time.process_time()
    training, epochs = train(run, dataset, checkpoints=store), []
    while True:
        try:
            epochs.append(next(training))
        except StopIteration as finished:
            model = finished.value
            break
        print(progress(number, run, epochs), flush=True)
    write_whole(work / f"{run.key}.keras", model)
    said = probabilities(work / f"{run.key}.keras", dataset, run)
    with (work / f"{run.key}.npz.tmp").open("wb") as file:
        np.savez_compressed(file, **said)
    (work / f"{run.key}.npz.tmp").replace(work / f"{run.key}.npz")
    record = {
        "member": number,
        "key": run.key,
        "run": asdict(run),
        "seconds": round(sum(epoch.seconds for epoch in epochs), 1),
        "processor_seconds_of_this_process": round(time.process_time() - busy, 1),
        "val_accuracy": [epoch.val_accuracy for epoch in epochs]
        if len(said["validation"])
        else None,
    }
    write_whole(work / f"{run.key}.json", json.dumps(record).encode())
    store.delete(run.key)


def progress(number: int, run: Run, epochs: Sequence[Epoch]) -> str:
    last = epochs[-1]
    return (
        f"member {number}, epoch {len(epochs)} of {run.epochs}: trained on {last.accuracy:.4f}, "
        f"held out {last.val_accuracy:.4f}, {last.seconds:.0f} s"
    )


def probabilities(path: Path, dataset: Dataset, run: Run) -> dict[str, Numbers]:
    """What a trained member says of the held-out and of the test images."""
    from study.final import classifier

    member = classifier.load_member(path)
    part = data.split(dataset.labels, run.validation, run.seed, run.repeat).validation
    model = classifier.with_preprocessing([member], dataset.input_shape)
    held_out = np.zeros((0, dataset.num_classes), np.float32)
    if len(part):
        held_out = classifier.probabilities(model, classifier.as_pixels(dataset.images[part]))
    test = classifier.probabilities(model, classifier.as_pixels(dataset.test_images))
    return {"validation": held_out, "test": test, "part": part}


def trained(work: Path, like: Run) -> Iterator[tuple[dict[str, Any], dict[str, Numbers]]]:
    """Records and probabilities of the members of this configuration, in the order of numbers."""
    found = [json.loads(path.read_text()) for path in work.glob("*.json")]
    own = json.loads(json.dumps(asdict(like)))
    for record in sorted(found, key=lambda record: record["member"]):
        if {**record["run"], "seed": own["seed"]} == own:
            with np.load(work / f"{record['key']}.npz", allow_pickle=False) as stored:
                yield record, {name: stored[name] for name in stored.files}


def table(work: Path, like: Run, dataset: Dataset) -> dict[str, Any]:
    """Single members, averages of every number of them, and the best member by validation."""
    members = list(trained(work, like))
    if not members:
        sys.exit(f"{work}: no member is trained yet")
    held_out = dataset.labels[members[0][1]["part"]]
    test = np.array([said["test"] for _, said in members])
    minutes = [record["seconds"] / 60 for record, _ in members]
    rows = [
        {"members": size, "minutes": size * statistics.fmean(minutes)}
        | averaged(test, dataset.test_labels, size)
        for size in range(1, len(members) + 1)
    ]
    result = {"trainings": [record for record, _ in members], "rows": rows}
    if len(held_out):
        right = [float((said["validation"].argmax(1) == held_out).mean()) for _, said in members]
        best = max(range(len(members)), key=right.__getitem__)
        result["best by validation"] = {
            "member": members[best][0]["member"],
            "validation": right[best],
            "test": float((test[best].argmax(1) == dataset.test_labels).mean()),
        }
    return result


def averaged(said: Numbers, labels: Numbers, size: int) -> dict[str, Any]:
    """Test accuracy of averages of ``size`` of the members: mean over all choices of them.

    ``said`` (members, images, classes) are probabilities. The 95 % interval is the jackknife's over
    members, for a U-statistic (Arvesen 1969): choices share members, so they are no sample of their
    own. None where no member can be left out. Of more than MOST choices, MOST are drawn.
    """
    count = len(said)
    groups = list(itertools.combinations(range(count), size))
    if len(groups) > MOST:
        drawn = np.random.default_rng(size).choice(len(groups), MOST, replace=False)
        groups = [groups[number] for number in drawn]
    right = np.array([(said[list(one)].sum(0).argmax(1) == labels).mean() for one in groups])
    without = [right[[member not in one for one in groups]] for member in range(count)]
    half = None
    if size < count:
        means = np.array([values.mean() for values in without])
        spread = math.sqrt((count - 1) / count * ((means - means.mean()) ** 2).sum())
        half = float(t.ppf(0.975, count - 1)) * spread
    return {
        "choices": len(groups),
        "mean": float(right.mean()),
        "half interval": half,
        "lowest": float(right.min()),
        "highest": float(right.max()),
    }


def show(result: dict[str, Any]) -> None:
    print(f"{'members':>8}{'choices':>8}{'test accuracy, 95 % interval':>32}{'minutes':>9}")
    for row in result["rows"]:
        half = row["half interval"]
        spread = f" ± {100 * half:.3f}" if half is not None else ""
        said = f"{100 * row['mean']:.3f}{spread} %"
        print(f"{row['members']:>8}{row['choices']:>8}{said:>32}{row['minutes']:>9.1f}")
    if best := result.get("best by validation"):
        print(f"best by validation: member {best['member']}, {100 * best['test']:.3f} %")
    print("minutes are those of one process, for all members of an average one after the other")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--space", default="modern")
    parser.add_argument("--work", type=Path, default=Path("accuracy"))
    parser.add_argument("--members", type=int, nargs="*", default=list(range(1, 6)))
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--holdout", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    dataset = data.load(args.data)
    for number in [] if args.table else args.members:
        run = run_of(args, number, dataset)
        if not (args.work / f"{run.key}.json").exists():
            start_tensorflow(args.threads)
            train_member(run, number, dataset, args.work)
    result = table(args.work, run_of(args, 0, dataset), dataset)
    show(result)
    if args.record:
        text = json.dumps({"machine": recorded.machine(*PACKAGES), **result}, indent=1) + "\n"
        write_whole(RECORD, text.encode())


if __name__ == "__main__":
    main()
