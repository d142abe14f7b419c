"""The yardstick's table: what it took, and what the answer is worth."""

from __future__ import annotations

import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

import recorded
from job import Task
from retrain import Worth, accuracies

Records = list[dict[str, Any]]
WIDTHS = (32, 9, 7, 8, 10, 16, 0)


def show(task: Task, records: Path, seeds: int) -> None:
    """Print a line for every contender, with and without logging."""
    found = [record for record in recorded.read(records) if record.get("task") == asdict(task)]
    turns = [record for record in found if "contender" in record]
    images = f"{task.images} images" if task.images else "all images"
    print(f"\n{task.space}: {images}, {task.epochs} epochs, batches of {task.batch_size}")
    for logging in (False, True):
        logged = [record for record in turns if record["logging"] == logging]
        if logged:
            print(f"\n{'with' if logging else 'without'} logging")
            _block(task, logged, records, seeds)
    threads = {turn["contender"]: turn["threads"] for turn in turns if "threads" in turn}
    print()
    for contender, how in threads.items():
        print(f"{contender}: {how}")
    if any(turn.get("extrapolated from runs") for turn in turns):
        print("~ extrapolated from complete stages: a missing run as long as one of what was kept")


def _block(task: Task, turns: Records, records: Path, seeds: int) -> None:
    _line("", "seconds", "ratio", "runs", "Mpasses", "test accuracy", "declared")
    yardstick = _seconds([turn for turn in turns if turn["contender"] == "tutorial"])
    for contender in dict.fromkeys(turn["contender"] for turn in turns):
        own = [turn for turn in turns if turn["contender"] == contender]
        fine = [turn for turn in own if "failed" not in turn]
        if not fine:
            print(f"{contender:{WIDTHS[0]}}failed: {own[-1]['failed']}")
            continue
        seconds = _seconds(fine)
        rough = "~" if any(turn.get("extrapolated from runs") for turn in fine) else ""
        _line(
            contender,
            f"{rough}{seconds:.0f}",
            f"{rough}{yardstick / seconds:.2f}" if yardstick and seconds else "",
            f"{statistics.median(turn['runs'] for turn in fine):.0f}",
            f"{statistics.median(turn['passes'] for turn in fine) / 1e6:.2f}",
            _worth(task, fine, records, seeds),
            "; ".join(dict.fromkeys(_shown(turn["configuration"]) for turn in fine)),
        )


def _seconds(turns: Records) -> float | None:
    taken = [turn["seconds"] for turn in turns if "failed" not in turn]
    return statistics.median(taken) if taken else None


def _worth(task: Task, turns: Records, records: Path, seeds: int) -> str:
    """The retrained accuracy of what was declared: the mean of the rounds' configurations.

    Its interval is over seeds; of several rounds that declared different things it is the mean of
    each seed over the rounds, so a seed counts once.
    """
    found = [
        accuracies(task, turn["configuration"], records) for turn in turns if turn["configuration"]
    ]
    whole = [one for one in found if all(seed in one for seed in range(seeds))]
    if not seeds or not whole or len(whole) < len(turns):
        return ""
    value = Worth.of([statistics.fmean(one[seed] for one in whole) for seed in range(seeds)])
    return f"{value.mean:.2%} ± {100 * value.half_width:.2f}"


def _shown(configuration: dict[str, Any] | None) -> str:
    return " ".join(f"{name}={value}" for name, value in (configuration or {}).items())


def _line(*columns: str) -> None:
    first, *rest = zip(columns, WIDTHS, strict=True)
    text = "".join(f"{column:>{width}}" for column, width in rest[:-1])
    print(f"{first[0]:{first[1]}}{text}  {rest[-1][0]}")
