"""Tests that need Keras on JAX: `test_grouped.py` runs them in a process of their own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from study.workers.jax.engine import start_jax

start_jax("cpu")

import jax  # noqa: E402
import keras  # noqa: E402
from sklearn.metrics import balanced_accuracy_score  # noqa: E402
from test_training import RUN, blobs  # noqa: E402

from study.data.dataset import split  # noqa: E402
from study.space.metric import BALANCED, Metric  # noqa: E402
from study.workers.jax import layers as grouped_layers  # noqa: E402
from study.workers.jax.groups import Groups  # noqa: E402

DATA = blobs(count=234)  # of which each fold has as many
DIVIDED = "integer division or modulo by zero"
SMALL = replace(RUN, epochs=2, batch_size=50, training="grouped")


def having(**params: Any) -> Any:
    return replace(SMALL, params=tuple({**dict(SMALL.params), **params}.items()))


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("strides", [1, 2, 3])
@pytest.mark.parametrize("width", [1, 2, (3, 4)])
def test_a_convolution_is_a_product(padding: str, strides: int, width: Any) -> None:
    images = np.random.default_rng(1).random((2, 9, 8, 3), np.float32)
    model = keras.Sequential(
        [keras.Input((9, 8, 3)), keras.layers.Conv2D(5, width, strides, padding=padding)]
    )
    expected = np.asarray(model(images))
    grouped_layers.prepare(model, None)
    np.testing.assert_allclose(model(images), expected, atol=1e-5)


def test_of_equal_pixels_in_a_pool_the_first_gets_the_gradient() -> None:
    layer = keras.layers.MaxPooling2D(2)
    model = keras.Sequential([keras.Input((4, 5, 1)), layer])
    images = np.random.default_rng(1).integers(0, 2, (3, 4, 5, 1)).astype(np.float32)

    def gradient() -> Any:
        return jax.grad(lambda x: (model(x) * np.arange(12).reshape(3, 2, 2, 1)).sum())(images)

    values, expected = np.asarray(model(images)), gradient()
    grouped_layers.prepare(model, None)
    np.testing.assert_array_equal(model(images), values)
    np.testing.assert_array_equal(gradient(), expected)


def trained(groups: Groups, members: list[Any]) -> list[Any]:
    """Train all runs to their end, an epoch of each in turn; their failures, or their models."""
    ends: dict[int, Any] = {}
    training = dict(enumerate(map(groups.train, members)))
    while training:
        for place, one in list(training.items()):
            try:
                next(one)
                continue
            except StopIteration as finished:
                ends[place] = finished.value
            except Exception as error:  # noqa: BLE001
                ends[place] = error
            del training[place]
            groups.remove(members[place])
    return [ends[place] for place in range(len(members))]


def test_runs_that_differ_in_numbers_alone_are_one_program() -> None:
    groups = Groups(DATA, None)
    for params in ({}, {"dropout": 0.4}, {"learning_rate": 0.1}, {"schedule": "cosine"}):
        groups.add(having(**params))
    groups.add(replace(SMALL, repeat=2))
    assert len(groups._programs) == 1
    groups.add(having(filters=5))
    groups.add(having(dropout=0.0))
    assert len(groups._programs) == 3


class Narrow:
    """A program of a card that has memory for ``room`` runs."""

    def __init__(self, program: Any, room: int) -> None:
        self._program, self._room = program, room
        self.tried: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._program, name)

    def epoch(self, runs: Any, size: int) -> Any:
        self.tried.append(size)
        if size > self._room:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 7 bytes")
        return self._program.epoch(runs, size)


@pytest.mark.parametrize("room", [2, 0])
def test_a_group_too_large_for_the_card_is_halved_and_nothing_is_lost(
    room: int, caplog: pytest.LogCaptureFixture
) -> None:
    groups = Groups(DATA, None)
    members = [groups.add(replace(SMALL, repeat=repeat)) for repeat in range(5)]
    [(key, program)] = groups._programs.items()
    groups._programs[key] = narrow = Narrow(program, room)  # type: ignore[assignment]
    ends = trained(groups, members)
    if not room:
        assert narrow.tried == [8, 4, 2, 1, 1, 1, 1, 1]
        assert {str(end) for end in ends} == {
            "out of memory: RESOURCE_EXHAUSTED: Out of memory allocating 7 bytes"
        }
        return
    assert caplog.messages == [
        "Out of memory with 5 runs at once: now 4",
        "Out of memory with 4 runs at once: now 2",
    ]
    assert [len(member.history.epochs) for member in members] == [2] * 5
    assert narrow.tried[:3] == [8, 4, 2]


def test_what_breaks_a_group_is_the_reason_of_its_runs_and_the_others_go_on() -> None:
    groups = Groups(DATA, None)
    members = [
        groups.add(run) for run in (having(filters=5), having(filters=5, dropout=0.5), SMALL)
    ]
    broken, _ = groups._programs.values()
    broken.epoch = lambda *_: 1 // 0  # type: ignore[method-assign]
    *failed, model = trained(groups, members)
    assert [str(failure) for failure in failed] == ["ZeroDivisionError: " + DIVIDED] * 2
    assert isinstance(model, bytes)


def test_programs_that_nobody_wants_are_released(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("study.workers.jax.groups._IDLE", 2)
    groups = Groups(DATA, None)
    for filters in range(2, 7):
        groups.remove(groups.add(having(filters=filters)))
    assert len(groups._programs) <= 3


def test_a_run_is_nearly_the_same_alone_and_beside_another() -> None:
    alone, beside = Groups(DATA, None), Groups(DATA, None)
    one, [same, _] = alone.add(SMALL), [beside.add(run) for run in (SMALL, having(dropout=0.4))]
    losses = [next(groups.train(run)).loss for groups, run in ((alone, one), (beside, same))]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_balanced_accuracy_is_the_mean_of_the_recalls_of_classes(tmp_path: Path) -> None:
    chosen = np.flatnonzero((DATA.labels == 0) | (np.arange(len(DATA.labels)) % 4 == 0))
    data = replace(DATA, images=DATA.images[chosen], labels=DATA.labels[chosen])
    groups = Groups(data, None)
    member = groups.add(replace(SMALL, metric=Metric(BALANCED)))
    run = member.run
    (tmp_path / "model.keras").write_bytes(trained(groups, [member])[0])
    part = split(data.labels, run.validation, run.seed, run.repeat).validation
    outputs = keras.models.load_model(tmp_path / "model.keras").predict(data.images[part])
    wanted = balanced_accuracy_score(data.labels[part], outputs.argmax(1))
    epoch = member.history.epochs[-1]
    assert epoch.logs()[BALANCED] == pytest.approx(wanted)
    assert wanted != pytest.approx(epoch.val_accuracy)
