"""How many of the labels that `gallery` suspects are really wrong: planted ones, and MNIST's own.

    python benchmarks/label_errors.py --data mnist.npz --space mnist --epochs 4 --record
    python benchmarks/label_errors.py --data digits --space digits --folds 3 --record

Members are trained as `mnist_accuracy.py` does, whose work folder may be given. The test part's
labels are judged, or with `--folds` those of the training part, each by members trained on the
other folds. Then a hundredth of the labels is changed, half of them to any other class, half to the
class of the nearest training image (of pixels) of another class, once for each of `--draws` seeds.
Shown is the share of real errors among the first 10, 20 and 50, and among the candidates.
"""

import argparse
import statistics
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import recorded
from mnist_accuracy import PACKAGES, run_of, train_member
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from study.data import dataset as data
from study.data.dataset import Dataset
from study.data.pixels import unit
from study.final.label_errors import rank
from study.space.search_space import Validation
from study.training.run import Run
from study.training.startup import start_tensorflow

RECORD = Path(__file__).with_name("records") / "label_errors.json"
FIRST = (10, 20, 50)
PART = 0.01  # of the labels is changed
MNIST = (947, 1621, 1901, 2130, 2462, 2597, 2654, 3520)
MNIST += (3558, 5937, 6651, 6783, 8527, 9679, 9729)
"""Test images whose label fewer than three of five people agreed with (labelerrors.com, the study
of arXiv:2103.14749; they were shown 100 images that models suspected). Some are of no digit at all.
"""

Numbers = NDArray[Any]


def members_of(args: argparse.Namespace, dataset: Dataset) -> tuple[Numbers, Numbers, Numbers]:
    """Probabilities (members, n, classes) of images no member saw, the images, the labels."""
    if not args.folds:
        said = [
            ask(args, run_of(args, number, dataset), number, dataset) for number in args.members
        ]
        return np.array([s["test"] for s in said]), dataset.test_images, dataset.test_labels
    found = np.zeros((len(args.members), len(dataset.labels), dataset.num_classes), np.float32)
    for place, number in enumerate(args.members):
        for fold in range(args.folds):
            run = run_of(args, number, dataset)  # whose seed draws the folds
            run = replace(run, validation=Validation("folds", folds=args.folds), repeat=fold)
            said = ask(args, run, number, dataset)
            found[place, said["part"]] = said["validation"]
    return found, dataset.images, dataset.labels


def ask(args: argparse.Namespace, run: Run, number: int, dataset: Dataset) -> dict[str, Numbers]:
    """What a member says, trained unless it was before."""
    path = args.work / f"{run.key}.npz"
    if not (args.work / f"{run.key}.json").exists():
        start_tensorflow(args.threads)
        train_member(run, number, dataset, args.work)
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def planted(
    labels: Numbers, images: Numbers, dataset: Dataset, seed: int
) -> tuple[Numbers, Numbers, Numbers]:
    """Labels, a hundredth changed; which to any class, which to the one that is most alike."""
    draw = np.random.default_rng(seed)
    chosen = draw.permutation(len(labels))[: round(PART * len(labels))]
    at_random, alike = chosen[: len(chosen) // 2], chosen[len(chosen) // 2 :]
    changed = labels.copy()
    steps = draw.integers(1, dataset.num_classes, len(at_random))
    changed[at_random] = (labels[at_random] + steps) % dataset.num_classes
    changed[alike] = most_alike(images[alike], labels[alike], dataset)
    return changed, at_random, alike


def most_alike(images: Numbers, labels: Numbers, dataset: Dataset) -> Numbers:
    """The class of the nearest training image of another class, by squared distance of pixels."""
    known = unit(dataset.images).reshape(len(dataset.images), -1)
    asked = unit(images).reshape(len(images), -1)
    distances = (known**2).sum(axis=1) - 2 * asked @ known.T
    distances[labels[:, np.newaxis] == dataset.labels] = np.inf
    return dataset.labels[distances.argmin(axis=1)]


def measured(said: Numbers, labels: Numbers, real: Numbers) -> dict[str, Any]:
    """Precision of the first ones and of the candidates, and their recall; ``real`` are images."""
    ranking, wrong = rank(said, labels), np.zeros(len(labels), bool)
    wrong[real] = True
    candidates = int(ranking.candidate.sum())
    mistaken = said.mean(axis=0).argmax(axis=1) != labels
    votes = said.argmax(axis=2)
    agreed = (votes != labels).all(axis=0) & (votes == votes[0]).all(axis=0)
    return {
        **{f"of the first {n}": float(wrong[ranking.order[:n]].mean()) for n in FIRST},
        "candidates": candidates,
        "of the candidates": float(wrong[ranking.candidate].mean()) if candidates else None,
        "recall of the candidates": float(ranking.candidate[real].mean()),
        "recall of as many as are wrong": float(wrong[ranking.order[: len(real)]].mean()),
        "mistakes": int(mistaken.sum()),
        "all members agree against": int(agreed.sum()),
        "of these": float(wrong[agreed].mean()) if agreed.any() else None,
    }


def rows(args: argparse.Namespace, dataset: Dataset) -> Iterator[dict[str, Any]]:
    """The labels as they are, where their errors are known, and those with planted errors."""
    said, images, labels = members_of(args, dataset)
    known: tuple[int, ...] = MNIST if args.data.endswith("mnist.npz") and not args.folds else ()
    common = {
        "images": len(labels),
        "members": len(said),
        "accuracy of a member": float((said.argmax(axis=2) == labels).mean()),
        "accuracy of the average": float((said.mean(axis=0).argmax(axis=1) == labels).mean()),
    }
    if known:
        yield {"labels": "as they are", **common, **measured(said, labels, np.array(known))}
    drawn = []
    for seed in range(args.draws):
        changed, at_random, alike = planted(labels, images, dataset, seed)
        own = measured(said, changed, np.concatenate([at_random, alike]))
        candidate = rank(said, changed).candidate
        own["recall, changed at random"] = float(candidate[at_random].mean())
        own["recall, changed to what is alike"] = float(candidate[alike].mean())
        drawn.append(own)
    spread = {}
    for name in drawn[0]:
        values = [one[name] for one in drawn if one[name] is not None]
        spread[name] = {"mean": statistics.fmean(values), "sd": statistics.stdev(values)}
    wrong = round(PART * len(labels))
    yield {"labels": f"{wrong} changed, {args.draws} draws (seeds from 0)", **common, **spread}


def show(result: dict[str, Any]) -> None:
    for name, value in result.items():
        match value:
            case {"mean": mean, "sd": sd}:
                print(f"{name:>34}: {mean:.3f} (standard deviation {sd:.3f})")
            case float():
                print(f"{name:>34}: {value:.4f}")
            case _:
                print(f"{name:>34}: {value}")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--space", default="digits")
    parser.add_argument("--work", type=Path, default=Path("label-errors"))
    parser.add_argument("--members", type=int, nargs="*", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--holdout", type=float, default=0.1)
    parser.add_argument("--folds", type=int, default=0)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    found = []
    for row in rows(args, data.load(args.data)):
        show(row)
        found.append(row)
    if args.record:
        machine = recorded.machine(*PACKAGES)
        known = recorded.read_whole(RECORD) or {}
        known[f"{Path(args.data).stem}, {args.epochs or 'all'} epochs"] = {
            "machine": machine,
            "rows": found,
        }
        recorded.write_whole(RECORD, known)


if __name__ == "__main__":
    main()
