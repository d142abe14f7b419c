"""What a study may cost, counted: epochs, graph traces, database statements, requests to MLflow.

Counts are the same on every machine and however busy it is; seconds stand in the log. A number that
grows here is paid for by every run of every study.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import fakes
import mirror_fakes
import numpy as np
import pytest
import servers
from optuna.storages import InMemoryStorage, RDBStorage
from sqlalchemy import event

from study.mirror.follow import Mirror
from study.mirror.tracker import resolve
from study.space.search_space import Validation
from study.storage import models
from study.storage.location import Database
from study.training.run import Epoch, Run
from study.tuning.pruning import make_pruner


class Counting:
    """The fake trainer with runs of ``epochs``; counts what it is asked for."""

    def __init__(self, epochs: int = fakes.EPOCHS) -> None:
        self.epochs, self.runs, self.trained = epochs, 0, 0

    def __call__(self, run: Run) -> Generator[Epoch, None, bytes]:
        self.runs += 1
        training = fakes.train(replace(run, epochs=self.epochs))
        for epoch in training:
            self.trained += 1
            yield epoch
        return b""


@contextmanager
def statements(opened: RDBStorage) -> Iterator[list[str]]:
    """The statements that are sent to the database inside."""
    sent: list[str] = []

    def listen(_: object, __: object, statement: str, *___: object) -> None:
        sent.append(statement)

    event.listen(opened.engine, "before_cursor_execute", listen)
    try:
        yield sent
    finally:
        event.remove(opened.engine, "before_cursor_execute", listen)


def test_a_sweep_trains_every_run_once_and_no_epoch_more() -> None:
    trainer = Counting()
    kept_alive = InMemoryStorage()
    fakes.drive(kept_alive, train=trainer)
    # The start, one other width, two other depths, each twice; the best means are what is selected.
    assert trainer.runs == 2 * (1 + 1 + 2)
    assert trainer.trained == trainer.runs * fakes.EPOCHS
    again = Counting()
    fakes.drive(kept_alive, train=again)
    assert again.trained == 0


def test_a_run_that_falls_behind_is_not_trained_to_its_end() -> None:
    def hopeless(run: Run) -> Generator[Epoch, None, bytes]:
        """Of any width or depth but those of the start."""
        start = dict(run.params) == {"width": 1, "depth": 2}
        for epoch in trainer(run):
            yield epoch if start else replace(epoch, val_accuracy=epoch.val_accuracy / 10)
        return b""

    trainer = Counting(epochs=30)
    pruner = make_pruner("sweep", trainer.epochs, fakes.IMAGES)
    fakes.drive(InMemoryStorage(), train=hopeless, pruner=pruner)
    # The start twice to the end; of three options the first repeat alone, and that in part.
    assert trainer.runs == 2 + 3
    assert trainer.trained == 2 * 30 + 3 * 4


def test_an_epoch_costs_five_statements_and_a_run_about_a_hundred(tmp_path: Path) -> None:
    sent = {epochs: _sent(tmp_path / f"{epochs}.db", epochs) for epochs in (4, 14)}
    runs = 2 * (1 + 1 + 2)
    each_epoch = (sent[14] - sent[4]) / (10 * runs)
    # Two for the curve (is the trial running? insert), three for the report, which looks for an
    # older one first; none to decide: what the pruner compares with is read once a run.
    assert each_epoch <= 5
    # Optuna asks for a trial's row, its parameters and its state again at each step from ask to
    # tell: about seventy, and three for each of two parameters that is suggested. The driver reads
    # the study's trials five times, six statements each.
    assert sent[4] / runs - 4 * each_epoch <= 111


def _sent(database: Path, epochs: int) -> int:
    """How many statements a whole sweep sends."""
    opened = Database.at(f"sqlite:///{database}").open(create=True)
    with statements(opened) as sent:
        fakes.drive(opened, train=Counting(epochs))
    return len(sent)


def test_a_run_costs_the_mirror_three_requests_and_nothing_new_none(tmp_path: Path) -> None:
    with servers.Proxy(servers.running().mlflow.url) as proxy:
        made = mirror_fakes.make(tmp_path, name="counted")
        models.record(made.study, "none")
        target = resolve(proxy.url, {}, Database.at(made.url))
        assert target is not None
        mirror = Mirror(Database.at(made.url).study(made.study.study_name), target)

        def cost(runs: int) -> int:
            """The requests of a pass after ``runs`` runs of one more option."""
            before = len(proxy.requests)
            for repeat in range(runs):
                made.add(made.option(filters=before), repeat)
            assert mirror.run(live=True).problems == []
            return len(proxy.requests) - before

        cost(1)  # the experiment and the study's own run are made
        # A run is created, filled and closed; those above it are brought up to date once a pass.
        assert cost(6) - cost(2) == 3 * (6 - 2)
        assert cost(0) == 0


@pytest.mark.tensorflow
def test_a_configuration_is_traced_once_a_process() -> None:
    from study.data.dataset import Dataset
    from study.training.train import train
    from study.training.trainer import Program

    rng = np.random.default_rng(0)
    images = rng.random((24, 8, 8, 1), np.float32)
    labels = np.arange(24, dtype=np.int32) % 2
    data = Dataset("made up", images, labels, images[:2], labels[:2], (0, 1), "f" * 64)
    small = {"filters": 1, "k1": 1, "k2": 1, "dense": 2}

    def trained(dropout: float, repeat: int) -> None:
        params = tuple({**small, "dropout": dropout}.items())
        validation = Validation("holdout", fraction=0.25)
        for _ in train(Run(params, repeat, 1, 2, 4, validation, 1, "f" * 64), data):
            pass

    before = Program.traces
    for dropout in (0.11, 0.22):
        for repeat in range(3):
            trained(dropout, repeat)
    assert Program.traces - before == 2 * 2  # to train and to judge
