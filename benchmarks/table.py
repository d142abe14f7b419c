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
    plain = [turn for turn in turns if not turn["logging"]]
    _difference(task, plain or turns, records, seeds)
    threads = {_name(turn): turn["threads"] for turn in turns if "threads" in turn}
    print()
    for contender, how in threads.items():
        print(f"{contender}: {how}")
    if any(turn.get("extrapolated from runs") for turn in turns):
        print("~ extrapolated from complete stages: a missing run as long as one of what was kept")


def _block(task: Task, turns: Records, records: Path, seeds: int) -> None:
    _line("", "seconds", "ratio", "runs", "Mpasses", "test accuracy", "declared")
    yardstick = _seconds([turn for turn in turns if _name(turn) == "tutorial"])
    for contender in dict.fromkeys(map(_name, turns)):
        own = [turn for turn in turns if _name(turn) == contender]
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


def _name(turn: dict[str, Any]) -> str:
    return turn["contender"] + (", oneDNN on" if turn.get("oneDNN") else "")


def _difference(task: Task, turns: Records, records: Path, seeds: int) -> None:
    """What the study's answers are worth less the tutorial's: in pairs, as seeds are the same."""
    each = {
        name: _each_seed(task, [turn for turn in turns if _name(turn) == name], records, seeds)
        for name in ("study", "tutorial")
    }
    if seeds > 1 and all(each.values()):
        pairs = zip(each["study"], each["tutorial"], strict=True)
        value = Worth.of([one - other for one, other in pairs])
        points = f"{100 * value.mean:+.2f} ± {100 * value.half_width:.2f} points"
        print(f"\nstudy less tutorial, the same {seeds} seeds and splits: {points}")


def _seconds(turns: Records) -> float | None:
    taken = [turn["seconds"] for turn in turns if "failed" not in turn]
    return statistics.median(taken) if taken else None


def _worth(task: Task, turns: Records, records: Path, seeds: int) -> str:
    """The retrained accuracy of what was declared, with its interval over the seeds."""
    each = _each_seed(task, turns, records, seeds)
    value = Worth.of(each) if each else None
    return f"{value.mean:.2%} ± {100 * value.half_width:.2f}" if value else ""


def _each_seed(task: Task, turns: Records, records: Path, seeds: int) -> list[float]:
    """Retrained accuracies, one a seed; none while some are missing.

    Of several rounds that declared different things it is the mean over the rounds, so that a seed
    counts once.
    """
    fine = [turn for turn in turns if "failed" not in turn]
    found = [
        accuracies(task, turn["configuration"], records) for turn in fine if turn["configuration"]
    ]
    whole = [one for one in found if all(seed in one for seed in range(seeds))]
    if not whole or len(whole) < len(fine):
        return []
    return [statistics.fmean(one[seed] for one in whole) for seed in range(seeds)]


def _shown(configuration: dict[str, Any] | None) -> str:
    return " ".join(f"{name}={value}" for name, value in (configuration or {}).items())


def _line(*columns: str) -> None:
    first, *rest = zip(columns, WIDTHS, strict=True)
    text = "".join(f"{column:>{width}}" for column, width in rest[:-1])
    print(f"{first[0]:{first[1]}}{text}  {rest[-1][0]}")
