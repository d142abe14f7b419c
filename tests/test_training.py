"""A run is its bits: the same after any interruption, in any process, under any callbacks."""

import subprocess
import sys
from collections.abc import Generator
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from study.data.dataset import Dataset
from study.errors import DataError, SettingsError, SpaceError, TrainingFailed
from study.space.search_space import Validation
from study.training.checkpoint import Checkpoint, FolderCheckpoints
from study.training.run import Epoch, Run
from study.training.train import start_tensorflow, train

pytestmark = pytest.mark.tensorflow


def blobs(side: int = 12, channels: int = 1, count: int = 230) -> Dataset:
    """Three classes that differ in where the image is bright; background is exactly 0."""
    rng = np.random.default_rng(5)
    labels = (np.arange(count) % 3).astype(np.int32)
    images = np.zeros((count, side, side, channels), np.float32)
    for image, label in zip(images, labels, strict=True):
        image[3 * label : 3 * label + 4, 2:9] = rng.random((4, 7, channels), np.float32)
    return Dataset("blobs", images, labels, images[:9], labels[:9], (0, 1, 2), f"b{side}{channels}")


DATA = blobs()
RUN = Run(
    params=(
        ("filters", 4),
        ("k1", 3),
        ("k2", 3),
        ("dense", 8),
        ("dropout", 0.2),
        ("learning_rate", 0.01),
    ),
    repeat=1,
    seed=7,
    epochs=4,
    batch_size=20,
    validation=Validation("folds", folds=3),
    threads=1,
    data_fingerprint=DATA.fingerprint,
)
PARAMS = dict(RUN.params)


def having(**params: Any) -> Run:
    return replace(RUN, params=tuple({**PARAMS, **params}.items()))


def finish(training: Generator[Epoch, None, Any]) -> tuple[list[Epoch], Any]:
    epochs = []
    while True:
        try:
            epochs.append(next(training))
        except StopIteration as end:
            return epochs, end.value


def weights(model: bytes, folder: Path) -> list[np.ndarray[Any, Any]]:
    import keras

    path = folder / "model.keras"
    path.write_bytes(model)
    return keras.models.load_model(path).get_weights()


def bits(epochs: list[Epoch]) -> list[tuple[float, ...]]:
    return [astuple(epoch)[:5] for epoch in epochs]


def continued(run: Run, folder: Path) -> tuple[Any, FolderCheckpoints]:
    """A run that was interrupted after two epochs has the bits of the whole one; with its store."""
    whole, store = finish(train(run, DATA)), FolderCheckpoints(folder)
    training = train(run, DATA, checkpoints=store)
    next(training), next(training)
    training.close()
    assert same(finish(train(run, DATA, checkpoints=store)), whole, folder)
    return whole, store


def same(one: tuple[list[Epoch], bytes], other: tuple[list[Epoch], bytes], folder: Path) -> bool:
    """The same curves and the same final weights, bit for bit."""
    pairs = zip(weights(one[1], folder), weights(other[1], folder), strict=True)
    return bits(one[0]) == bits(other[0]) and all(np.array_equal(a, b) for a, b in pairs)


@pytest.fixture(scope="module", params=["fast", "stock"])
def run(request: pytest.FixtureRequest) -> Run:
    return replace(RUN, training=request.param)


@pytest.fixture(scope="module")
def undisturbed(run: Run) -> tuple[list[Epoch], bytes]:
    return finish(train(run, DATA))


def test_it_learns(undisturbed: tuple[list[Epoch], bytes]) -> None:
    epochs, _ = undisturbed
    assert [epoch.number for epoch in epochs] == [0, 1, 2, 3]
    assert epochs[-1].val_accuracy > 0.9 > epochs[0].accuracy
    assert epochs[-1].val_loss < epochs[0].val_loss
    assert all(epoch.seconds > 0 for epoch in epochs)


def test_a_second_run_of_a_configuration_has_the_same_bits_and_is_not_traced_again(
    run: Run, undisturbed: tuple[list[Epoch], bytes], tmp_path: Path
) -> None:
    from study.training.trainer import Program

    finish(train(replace(run, repeat=2), DATA))
    before = Program.traces
    assert same(finish(train(run, DATA)), undisturbed, tmp_path)
    assert Program.traces == before


def test_two_runs_of_a_configuration_at_once_do_not_disturb_each_other(
    run: Run,
    undisturbed: tuple[list[Epoch], bytes],
) -> None:
    one, other = train(run, DATA), train(run, DATA)
    taken = [(next(one), next(other)) for _ in range(3)]
    assert bits([a for a, _ in taken]) == bits([b for _, b in taken]) == bits(undisturbed[0][:3])


@pytest.mark.parametrize("given_up_after", [0, 1, 3])
def test_a_run_that_was_given_up_continues_to_the_same_bits(
    run: Run, given_up_after: int, undisturbed: tuple[list[Epoch], bytes], tmp_path: Path
) -> None:
    store = FolderCheckpoints(tmp_path)
    training = train(run, DATA, checkpoints=store)
    for _ in range(given_up_after):
        next(training)
    training.close()
    resumed = finish(train(run, DATA, checkpoints=store))
    assert same(resumed, undisturbed, tmp_path)


@pytest.mark.parametrize("params", [{}, {"restore_best_weights": True, "learning_rate": 0.1}])
def test_a_run_that_pauses_goes_on_to_the_same_bits(
    run: Run, params: dict[str, Any], tmp_path: Path
) -> None:
    store = FolderCheckpoints(tmp_path)
    run = replace(run, params=having(**params).params)
    paused, no_model = finish(train(replace(run, until=2), DATA, checkpoints=store))
    again, _ = finish(train(replace(run, until=1), DATA, checkpoints=store))
    whole, model = finish(train(replace(run, until=9), DATA, checkpoints=store))
    assert (paused, again, no_model) == (whole[:2], whole[:1], None)
    assert same((whole, model), finish(train(run, DATA)), tmp_path)


def test_a_killed_run_continues_in_another_process_to_the_same_bits(
    run: Run, undisturbed: tuple[list[Epoch], bytes], tmp_path: Path
) -> None:
    program = """if True:
        import os, signal, sys
        from pathlib import Path
        from test_training import DATA, RUN, FolderCheckpoints, replace, train
        run = replace(RUN, training=sys.argv[2])
        for epoch in train(run, DATA, checkpoints=FolderCheckpoints(Path(sys.argv[1]))):
            if epoch.number == 1 and "jax" not in sys.modules:  # only the JAX engine may import it
                os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), run.training],
        cwd=Path(__file__).parent,
        env={"PYTHONPATH": str(Path(__file__).parents[1])},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (killed.returncode, killed.stderr) == (-9, "")  # and TensorFlow was quiet
    resumed = finish(train(run, DATA, checkpoints=FolderCheckpoints(tmp_path)))
    assert resumed[0][0].ended < resumed[0][1].ended < undisturbed[0][0].ended + 1e9
    assert same(resumed, undisturbed, tmp_path)


def test_a_finished_run_that_was_not_recorded_is_told_again_without_training(
    run: Run, undisturbed: tuple[list[Epoch], bytes], tmp_path: Path
) -> None:
    store = FolderCheckpoints(tmp_path)
    first = finish(train(run, DATA, checkpoints=store))
    again = finish(train(run, DATA, checkpoints=store))
    assert again[0] == first[0]
    assert same(again, undisturbed, tmp_path)
    store.delete(run.key)
    assert store.load(run.key) is None


def test_a_checkpoint_of_another_network_is_ignored_with_a_warning(
    run: Run,
    undisturbed: tuple[list[Epoch], bytes],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = FolderCheckpoints(tmp_path)
    store.save(Checkpoint(run.key, (), (np.zeros(3),)))
    assert bits([next(train(run, DATA, checkpoints=store))]) == bits(undisturbed[0][:1])
    assert "another network" in caplog.text


EPOCH = {
    "number": 0,
    "acc": 1.0,
    "loss": 0.1,
    "val_acc": 1.0,
    "val_loss": 0.1,
    "seconds": 1.0,
    "ended": 1e9,
    "others": {},
}


@pytest.mark.parametrize(
    "forged",
    [
        {"number": 1},
        {"val_acc": 1.5},
        {"loss": float("nan")},
        {"ended": "now"},
        {"others": {"auc": "high"}},
        {"others": 3},
        {},  # one epoch, of a network that was trained for none
    ],
)
def test_a_history_that_the_run_cannot_have_had_is_ignored_with_a_warning(
    forged: dict[str, Any],
    undisturbed: tuple[list[Epoch], bytes],
    run: Run,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from study.training.trainer import _program

    store, state = FolderCheckpoints(tmp_path), _program(run, DATA).state()
    store.save(Checkpoint(run.key, ({**EPOCH, **forged},), state))
    assert bits([next(train(run, DATA, checkpoints=store))]) == bits(undisturbed[0][:1])
    assert "a checkpoint is ignored, the run starts anew" in caplog.text
    assert caplog.text.count("\n") == 1


def test_more_epochs_than_a_run_has_are_ignored(run: Run, tmp_path: Path) -> None:
    store = FolderCheckpoints(tmp_path)
    finish(train(run, DATA, checkpoints=store))
    stored = store.load(run.key)
    assert stored is not None
    more = (*stored.history, {**stored.history[-1], "number": 4})
    store.save(replace(stored, history=more))
    assert len(finish(train(run, DATA, checkpoints=store))[0]) == run.epochs


def test_a_full_disk_does_not_stop_a_run(
    run: Run,
    undisturbed: tuple[list[Epoch], bytes],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").touch()
    trained = finish(train(run, DATA, checkpoints=FolderCheckpoints(tmp_path / "file")))
    assert same(trained, undisturbed, tmp_path)
    assert "no checkpoint can be written" in caplog.text


def test_layers_of_equal_shape_start_equal_in_every_configuration_on_either_path(
    tmp_path: Path,
) -> None:
    still = having(learning_rate=1e-30)
    wide = having(learning_rate=1e-30, dense=16)
    one, other, repeat, stock = (
        weights(finish(train(replace(run, epochs=1), DATA))[1], tmp_path)
        for run in (still, wide, replace(still, repeat=2), replace(still, training="stock"))
    )
    assert all(np.allclose(a, b, 0, 1e-12) for a, b in zip(one, stock, strict=True))
    kernels = zip(one[0:4:2], other[0:4:2], repeat[0:4:2], strict=True)
    for kernel, same_shape, same_shape_of_another_repeat in kernels:
        assert np.array_equal(kernel, same_shape)
        assert not np.array_equal(kernel, same_shape_of_another_repeat)


def test_a_saved_model_needs_keras_alone_and_is_the_last_epochs(tmp_path: Path) -> None:
    from study.data import dataset as data

    last = {}
    for path in ("fast", "stock"):
        epochs, model = finish(train(replace(RUN, training=path), DATA))
        (tmp_path / f"{path}.keras").write_bytes(model)
        last[path] = epochs[-1].val_accuracy
    np.savez(tmp_path / "images.npz", DATA.images)
    program = """if True:
        import sys, numpy, keras
        images = numpy.load("images.npz")["arr_0"]
        for path in sys.argv[1:]:
            model = keras.models.load_model(f"{path}.keras")
            numpy.save(f"{path}.npy", model.predict(images, verbose=0))
        assert not any(name.startswith("study") for name in sys.modules)
    """
    command = [sys.executable, "-c", program, *last]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    chosen = data.split(DATA.labels, RUN.validation, RUN.seed, RUN.repeat).validation
    for path, accuracy in last.items():
        said = np.load(tmp_path / f"{path}.npy").argmax(-1)
        assert np.mean((said == DATA.labels)[chosen]) == accuracy


def test_callbacks_hear_every_epoch_and_can_stop_the_run(
    run: Run, undisturbed: tuple[list[Epoch], bytes], tmp_path: Path
) -> None:
    import keras

    class Listener(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.heard: list[Any] = []

        def on_train_begin(self, logs: Any = None) -> None:
            self.heard.append("begin")

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.heard.append((epoch, logs))
            self.model.stop_training = epoch == 2

        def on_train_end(self, logs: Any = None) -> None:
            self.heard.append("end")

    expected = ["begin", *[(epoch.number, epoch.logs()) for epoch in undisturbed[0][:3]], "end"]
    store = FolderCheckpoints(tmp_path)
    for _ in ("trained", "continued"):
        listener = Listener()
        epochs, _ = finish(train(run, DATA, checkpoints=store, callbacks=[listener]))
        assert bits(epochs) == bits(undisturbed[0][:3])
        assert listener.heard == expected
    assert sorted(expected[1][1]) == ["accuracy", "loss", "val_accuracy", "val_loss"]


def test_a_callback_that_changes_the_learning_rate_is_obeyed_and_remembered(
    run: Run,
    tmp_path: Path,
) -> None:
    import keras

    store = FolderCheckpoints(tmp_path)
    halving = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=0, min_delta=10)
    whole = finish(train(run, DATA, callbacks=[halving]))
    training = train(run, DATA, checkpoints=store, callbacks=[halving])
    next(training), next(training)
    training.close()
    assert same(finish(train(run, DATA, checkpoints=store, callbacks=[halving])), whole, tmp_path)
    assert bits(whole[0]) != bits(finish(train(run, DATA))[0])


def test_a_run_begins_with_the_weights_that_a_callback_gives_it(run: Run, tmp_path: Path) -> None:
    import keras

    class Smaller(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            self.model.set_weights([array / 2 for array in self.model.get_weights()])

    store = FolderCheckpoints(tmp_path)
    whole = finish(train(run, DATA, callbacks=[Smaller()]))
    assert bits(whole[0]) != bits(finish(train(run, DATA))[0])
    training = train(run, DATA, checkpoints=store, callbacks=[Smaller()])
    next(training), next(training)
    training.close()
    assert same(finish(train(run, DATA, checkpoints=store, callbacks=[Smaller()])), whole, tmp_path)


def test_a_loss_that_is_no_number_is_the_reason(run: Run) -> None:
    wild = replace(run, params=having(learning_rate=1e30).params)
    with pytest.raises(TrainingFailed, match=r"^the (validation )?loss is NaN in epoch [123]$"):
        finish(train(wild, DATA))


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"batch_norm": True, "schedule": "one_cycle", "label_smoothing": 0.1},
        {"rotation": 10.0, "zoom": 0.1, "translation": 0.1, "strided": True},
    ],
)
def test_without_dropout_both_paths_give_the_same_numbers_to_rounding(
    params: dict[str, Any],
) -> None:
    chosen = having(dropout=0.0, learning_rate=0.001, **params)
    fast, stock = (
        finish(train(replace(chosen, training=path, epochs=2), DATA))[0]
        for path in ("fast", "stock")
    )
    for one, other in zip(bits(fast), bits(stock), strict=True):
        assert one == pytest.approx(other, rel=2e-3)


def test_with_dropout_both_paths_learn_alike() -> None:
    """Of eight repeats, the mean losses differ by less than the losses of one path do."""
    fast, stock = (
        [
            finish(train(replace(RUN, repeat=repeat, training=path, epochs=2), DATA))[0][-1].loss
            for repeat in range(3, 11)
        ]
        for path in ("fast", "stock")
    )
    assert abs(np.mean(fast) - np.mean(stock)) < np.std(fast, ddof=1)
    assert not set(fast) & set(stock)  # each draws its own


def test_a_lack_of_memory_is_told_in_one_line(run: Run) -> None:
    import keras

    class Hungry(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            raise MemoryError("cannot allocate\nall of it")

    with pytest.raises(TrainingFailed, match=r"^out of memory: cannot allocate$"):
        finish(train(run, DATA, callbacks=[Hungry()]))


def test_other_data_than_the_runs_is_refused() -> None:
    with pytest.raises(DataError, match="not the data"):
        next(train(RUN, blobs(side=13)))


def test_an_impossible_network_is_refused_before_training() -> None:
    with pytest.raises(SpaceError, match="k2 is 9"):
        next(train(having(k2=9), DATA))


def test_another_number_of_threads_needs_another_process() -> None:
    next(train(RUN, DATA))
    with pytest.raises(SettingsError, match="not with threads=3"):
        start_tensorflow(3)


def test_a_batch_may_be_larger_than_the_data(run: Run) -> None:
    assert len(finish(train(replace(run, batch_size=1000, epochs=1), DATA))[0]) == 1


def test_every_field_of_a_run_is_in_its_key() -> None:
    changes: list[dict[str, Any]] = [
        {"params": having(k1=4).params},
        {"repeat": 0},
        {"seed": 8},
        {"epochs": 5},
        {"batch_size": 21},
        {"validation": Validation("holdout", 0.2)},
        {"threads": 2},
        {"training": "stock"},
        {"data_fingerprint": "other"},
    ]
    keys = [replace(RUN, **change).key for change in [{}, *changes]]
    assert len(set(keys)) == len(keys)
    assert replace(RUN, params=RUN.params[::-1]).key == RUN.key
    assert replace(RUN, until=2).key == RUN.key  # the same run, wherever it pauses


def test_the_module_itself_imports_no_tensorflow() -> None:
    program = "import study.training.run, sys; sys.exit('tensorflow' in sys.modules)"
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True)


@pytest.mark.tensorflow
@pytest.mark.parametrize("aligned", [True, False])
def test_many_images_as_bytes_are_trained_on_where_they_lie(
    monkeypatch: pytest.MonkeyPatch, aligned: bool
) -> None:
    from study.data import pixels
    from study.training import trainer

    monkeypatch.setattr(trainer, "_LARGE", 0)
    whole = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    images = pixels.take(whole, np.array([3, 1])) if aligned else whole[1:][:, :, 1:]
    images.setflags(write=False)
    assert pixels.is_aligned(images) is aligned
    tensor, labels = trainer.resident(images, np.arange(len(images), dtype=np.int32))
    assert np.array_equal(tensor.numpy(), images)
    assert labels.numpy().tolist() == [*range(len(images))]
    assert not images.flags.writeable


def test_stock_layers_are_left_alone_and_so_are_those_on_a_gpu() -> None:
    from study.training.trainer import _program

    for how, replaced in (({}, 3), ({"training": "stock"}, 0), ({"device": "gpu"}, 0)):
        layers = _program(replace(RUN, **how), DATA).model.layers
        assert sum("call" in vars(layer) for layer in layers) == replaced + replaced // 3 * 2
