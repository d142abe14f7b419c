"""The file of an own network: what lies beside it, where it travels, and how it can go wrong."""

import signal
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import psutil
import pytest
import test_training as base
from engine_contract import ended
from test_commands import command, finish
from test_layout import FOLDER, imported, modules
from test_own_model import HEAD, RESIDUAL, SEQUENTIAL, run_of

from study.errors import ModelError, SpaceError, TrainingFailed
from study.space.model_source import ModelSource
from study.space.search_space import SearchSpace
from study.training.train import train
from study.workers.pool import local_pool

pytestmark = pytest.mark.tensorflow

PRETRAINED = """
from pathlib import Path

def build(params, input_shape, num_classes):
    model = keras.Sequential([
        layers.Input(input_shape),
        layers.Flatten(),
        layers.Dense(params["width"], "relu", name="hidden"),
        layers.Dense(num_classes, "softmax"),
    ])
    model.load_weights(Path(__file__).with_name("start.weights.h5"))
    return compiled(model, params)
"""


@pytest.fixture
def pretrained(tmp_path: Path) -> ModelSource:
    """A network that starts from weights beside its file."""
    network = keras.Sequential([keras.Input((12, 12, 1)), keras.layers.Flatten()])
    network.add(keras.layers.Dense(4, "relu", name="hidden"))
    network.add(keras.layers.Dense(3, "softmax"))
    network.save_weights(tmp_path / "start.weights.h5")
    (tmp_path / "my_model.py").write_text(HEAD + PRETRAINED)
    return ModelSource.read("my_model.py:build", tmp_path, "my.toml", ("start.weights.h5",))


def test_weights_beside_the_file_are_where_every_run_starts(pretrained: ModelSource) -> None:
    from study.training.custom_model import build

    starts = [
        build(pretrained, {"width": 4, "rate": 0.1}, (12, 12, 1), 3, seed)[0].get_weights()
        for seed in (1, 2)
    ]
    assert all(np.array_equal(one, other) for one, other in zip(*starts, strict=True))
    run = replace(run_of("", width=4), model=pretrained)
    assert base.finish(train(run, base.DATA))[0][-1].val_accuracy > 0.5


def test_other_weights_are_another_network(pretrained: ModelSource, tmp_path: Path) -> None:
    assert [name for name, _ in pretrained.files] == ["start.weights.h5"]
    (tmp_path / "start.weights.h5").write_bytes(b"others")
    changed = ModelSource.read("my_model.py:build", tmp_path, "my.toml", ("start.weights.h5",))
    assert changed.fingerprint != pretrained.fingerprint
    assert pretrained.now(tmp_path / "my_model.py") == changed
    assert changed.digest == pretrained.digest
    assert pretrained.changed_in(changed) == tmp_path / "start.weights.h5"
    assert pretrained.changed_in(replace(changed, text="")) == tmp_path / "my_model.py"


def test_weights_that_a_worker_lacks_are_named(pretrained: ModelSource) -> None:
    elsewhere = replace(pretrained, path="/nowhere/my_model.py")
    missing = "/nowhere/start.weights.h5 is not on this machine: copy it from where the study was"
    with pytest.raises(ModelError, match=missing):
        elsewhere.check_files()
    other = replace(elsewhere, text=f"{elsewhere.text}\n# seen by no test before this one")
    with pytest.raises(TrainingFailed, match=f"my_model.py:build: {missing}"):
        next(train(replace(run_of(""), model=other), base.DATA))


@pytest.mark.parametrize("wrong", ["gone.h5", ".", "/dev/zero"])
def test_a_file_that_cannot_be_read_is_named(
    wrong: str, pretrained: ModelSource, tmp_path: Path
) -> None:
    said = (
        rf"^my.toml: files: \S*{Path(wrong).name or tmp_path.name} is not there or cannot be read"
    )
    with pytest.raises(SpaceError, match=said):
        ModelSource.read("my_model.py:build", tmp_path, "my.toml", ("start.weights.h5", wrong))


def test_paths_count_from_the_folder_of_the_space(pretrained: ModelSource, tmp_path: Path) -> None:
    (tmp_path / "nets").mkdir()
    (tmp_path / "my_model.py").rename(tmp_path / "nets/my_model.py")
    files = ("start.weights.h5", "./start.weights.h5")
    moved = ModelSource.read("nets/my_model.py:build", tmp_path, "my.toml", files)
    assert [name for name, _ in moved.files] == ["../start.weights.h5"]
    moved.check_files()


def test_files_without_a_model_are_refused() -> None:
    table = {"name": "a", "epochs": 1, "batch_size": 1, "repeats": 1, "hyperparameters": {}}
    table["hyperparameters"] = {"dense": {"options": [1], "start": 1}}
    with pytest.raises(SpaceError, match="files: are those that a model reads; give model too"):
        SearchSpace.from_dict(table | {"files": ["a.h5"]})
    with pytest.raises(SpaceError, match=r"files: .a.h5. is not allowed; give a list of files"):
        SearchSpace.from_dict(table | {"files": "a.h5", "model": "net.py:build"})


def test_an_own_network_travels_to_a_worker_and_trains_to_the_same_bits_there() -> None:
    runs = [replace(run_of(text, drop=0.3), epochs=2) for text in (SEQUENTIAL, RESIDUAL)]
    with closing(local_pool(base.DATA, 1)) as engine:
        there = [ended(engine, run) for run in runs]
    for run, (epochs, model) in zip(runs, there, strict=True):
        assert base.bits(epochs) == base.bits(base.finish(train(run, base.DATA))[0])
        assert model is not None


def test_only_who_trains_or_loads_a_model_runs_code_of_the_users() -> None:
    runs_code = {"training.custom_model", "training.user_code", "training.backbone"}
    users = {
        module
        for module in modules()
        for name in imported((FOLDER / f"{module.replace('.', '/')}.py").read_text())
        if name in runs_code or name.rpartition(".")[0] in runs_code
    }
    assert users - runs_code == {
        "final.archive",
        "final.finalize",
        "final.measure",
        "final.judge",
        "running.features",
        "workers.jax.groups",
        "training.cost",
        "training.probe",
        "training.trainer",
        "tuning.objective",
    }


# Commands --------------------------------------------------------------------------------------

SPACE = """
name = "mine"
model = "my_model.py:build"
data = "some.npz"
epochs = 2
batch_size = 8
repeats = 1
validation = { folds = 2 }

[hyperparameters.width]
options = [4]
start = 4
"""


def given(folder: Path, text: str) -> Path:
    images = np.zeros((12, 8, 8, 1), np.uint8)
    np.savez(folder / "some.npz", x_train=images, y_train=np.arange(12) % 2)
    (folder / "my_model.py").write_text(text)
    (folder / "my.toml").write_text(SPACE)
    return folder


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"some.npz", "my_model.py", "my.toml"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("print('hello')\n1 / 0", "my_model.py:build: line 2: ZeroDivisionError"),
        (None, "my_model.py is not there; its path counts from the space's folder"),
    ],
)
def test_a_file_of_no_use_is_a_line_and_leaves_nothing(
    text: str | None, said: str, tmp_path: Path
) -> None:
    given(tmp_path, text or "")
    if text is None:
        (tmp_path / "my_model.py").unlink()
    out, err = finish(tmp_path, "run", "my.toml", code=2)
    (line,) = err.splitlines()
    assert line.startswith("study: my.toml: ")
    assert said in line
    assert "hello" not in out
    assert left(tmp_path) == set()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_file_that_never_ends_ends_with_the_command(how: signal.Signals, tmp_path: Path) -> None:
    endless = "import os\nopen(os.path.dirname(__file__) + '/began', 'w').write(str(os.getpid()))\n"
    given(tmp_path, endless + "while True: pass")
    began = tmp_path / "began"
    with command(tmp_path, "run", "my.toml") as process:
        while not (began.exists() and began.read_text()):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(how)
        _, err = process.communicate()
    if how == signal.SIGINT:
        assert (process.returncode, err) == (130, "Stopped.\n")
    pid = int(began.read_text())
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=60)
    assert not psutil.pid_exists(pid)
    assert left(tmp_path) == {"began"}
