"""What would the sweep's pruner have done? Replays the unpruned curves of stored studies.

Give it databases of studies that were run with ``--pruner none``. For each setting of the margin
it counts, over every option of every stage, the epochs that would not have been trained, and the
eliminations that would have been wrong: of an option that the unpruned sweep notes or carries,
or, more strictly, of one that ties with the best.

    python benchmarks/pruner_replay.py sqlite:///none.db [...] [--json FILE]
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import recorded

from study.plan.plan import Option, PlanState, Stage
from study.plan.results import StoredTrial
from study.plan.strategies import plan_of
from study.storage import database as storage
from study.storage.location import Database
from study.storage.progress import standing_of
from study.storage.trials import StoredTrials
from study.tuning.pruning import Margin

WARMUPS = (4, 6, 8)
ERRORS = (1.5, 2.0, 2.5, 3.0, 4.0)


@dataclass
class Tally:
    """What one margin does to every stage it was replayed on."""

    options: int = 0
    eliminated: int = 0
    wrong: int = 0
    tied: int = 0
    epochs: int = 0
    saved: int = 0


@dataclass(frozen=True)
class Case:
    """A decided stage of an unpruned study, and its number of validation images."""

    study: str
    stage: Stage
    images: int | None


def cases(urls: list[str]) -> Iterator[Case]:
    """Every decided stage of the unpruned studies in these databases, the last one left out."""
    for url in urls:
        opened = Database.at(url).open()
        for name in storage.names(opened):
            study, settings = storage.load(opened, name)
            if settings["pruner"] != "none":
                continue
            for stage in standing_of(study, settings).stages:
                if stage.decided and stage.name != "best_mean":
                    yield Case(name, stage, settings.images)


def replay(case: Case, margin: Margin, tally: Tally) -> None:
    """Add what ``margin`` would have done to one stage."""
    stage = case.stage
    held = next(o for o in stage.options if o.configuration == stage.incumbent)
    for option in stage.options:
        if option is held:
            continue
        tally.options += 1
        total = sum(len(row.reported) for row in option.rows)
        trained = _trained(option, held, margin, case.images)
        tally.epochs += total
        tally.saved += total - trained
        if trained < total:
            tally.eliminated += 1
            tally.wrong += option in (stage.best, stage.selected)
            tally.tied += option.tied


def _trained(option: Option, held: Option, margin: Margin, images: int | None) -> int:
    """Epochs that would have been trained of an option, repeat after repeat until it is out."""
    trained = 0
    for row, reference in zip(option.rows, held.rows, strict=True):
        for epoch in range(1, len(row.reported) + 1):
            if margin.behind(row.reported[:epoch], reference.reported, images) is not None:
                return trained + epoch
        trained += len(row.reported)
    return trained


def pruned_sweep(url: str, name: str, margin: Margin) -> tuple[PlanState | None, int]:
    """The whole sweep as it goes with the pruner, on stored curves, and the epochs it trains.

    None where the pruned sweep wants a configuration that the unpruned one never trained.
    """
    study, settings = storage.load(Database.at(url).open(), name)
    stored = {(row.configuration, row.repeat): row for row in StoredTrials()(study)}
    plan, rows, epochs = plan_of(settings), [], 0
    while not (plan_state := plan.state(rows)).complete:
        slot = plan_state.next[0]
        found = stored.get((slot.configuration, slot.repeat))
        if found is None or found.state != "complete":
            return None, epochs
        length = _cut(found, stored.get((slot.reference, slot.repeat)), margin, settings.images)
        changes = {"number": len(rows), "reference": slot.reference, "stage": slot.stage}
        if length < len(found.reported):
            changes |= {"state": "pruned", "value": None, "reported": found.reported[:length]}
        rows.append(replace(found, **changes))
        epochs += length
    return plan_state, epochs


def _cut(
    row: StoredTrial, reference: StoredTrial | None, margin: Margin, images: int | None
) -> int:
    """After how many epochs a run is stopped; all of them if it is not."""
    for epoch in range(1, len(row.reported) + 1):
        if (
            reference
            and margin.behind(row.reported[:epoch], reference.reported, images) is not None
        ):
            return epoch
    return len(row.reported)


def answers(urls: list[str], margin: Margin) -> Iterator[str]:
    """Say, study by study, whether the pruned sweep gives the answer of the unpruned one."""
    for url in urls:
        for name in storage.names(Database.at(url).open()):
            study, settings = storage.load(Database.at(url).open(), name)
            before = standing_of(study, settings)
            total = sum(len(row.reported) for row in StoredTrials()(study))
            after, epochs = pruned_sweep(url, name, margin)
            if after is None or before.incumbent is None:
                yield f"{name}: the pruned sweep leaves the stored curves"
                continue
            same = "same answer" if after.incumbent == before.incumbent else "other answer"
            yield f"{name}: {same}, {epochs} of {total} epochs; {dict(after.incumbent or ())}"


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("urls", nargs="+")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = list(cases(arguments.urls))
    print(f"{len({case.study for case in found})} studies, {len(found)} stages")
    print("warmup errors | options eliminated wrong tied | epochs saved")
    records = []
    for warmup, errors in itertools.product(WARMUPS, ERRORS):
        margin, tally = Margin(warmup=warmup, errors=errors), Tally()
        for case in found:
            replay(case, margin, tally)
        share = tally.saved / tally.epochs if tally.epochs else 0.0
        print(
            f"{warmup:6} {errors:6.1f} | {tally.options:7} {tally.eliminated:10} {tally.wrong:5} "
            f"{tally.tied:4} | {tally.saved:6} of {tally.epochs} ({share:.0%})"
        )
        records.append({**asdict(margin), **asdict(tally)})
    said = list(answers(arguments.urls, Margin()))
    print(*said, sep="\n")
    if arguments.json:
        record = {"margins": records, "answers": said, "machine": recorded.machine("optuna")}
        recorded.write_whole(arguments.json, record)


if __name__ == "__main__":
    main()
