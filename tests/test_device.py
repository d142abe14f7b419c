"""What trains is found without TensorFlow, recorded, and kept to; the GPUs here are pretended."""

import json
import os
import subprocess
import sys
import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import fake_gpu
import fakes
import image_files
import numpy as np
import optuna
import pytest
from optuna.trial import create_trial

from study.data.dataset import Dataset
from study.errors import SettingsError, StudyLocked
from study.running.driver import Observers
from study.running.launch import ExecutionOptions, alone_on_cards, jobs_of, launch
from study.running.prepare import Prepared, prepare, prepare_again
from study.space.settings import Setting, Settings
from study.storage import database as storage
from study.storage.location import DEFAULT, Database
from study.storage.trials import RUN_SPEC, StoredTrials
from study.training.device import CPU, Devices, devices, offered
from study.training.startup import _choose
from study.tuning.objective import Objective
from study.workers.cards import held
from study.workers.engine import RunFinished
from study.workers.machine import cores
from study.workers.pool import local_pool

LINES = (
    "GPU-aaaa1111, NVIDIA H100 80GB HBM3, 81559, 550.54.15\n"
    "GPU-bbbb2222, NVIDIA H100 80GB HBM3, 81559, 550.54.15\n"
)
TENSORFLOW = {
    "tensorflow": ['nvidia-cudnn-cu12<10.0,>=9.3; extra == "and-cuda"', "numpy>=1.26"],
    "nvidia-cudnn-cu12": [],
}
JAX_13: dict[str, list[str]] = {"jax-cuda13-plugin": []}


def found(
    lines: str = LINES,
    packages: dict[str, list[str]] = TENSORFLOW,
    cuda: int | None = None,
    **environ: str,
) -> Devices:
    find = None if cuda is None else f"lib.so.{cuda}"
    return devices(environ, lambda: lines, packages.get, lambda _: find, lambda name: name)


def failing(error: Exception) -> Devices:
    def ask() -> str:
        raise error

    return devices({}, ask, TENSORFLOW.get)


def without_driver() -> Devices:
    def load(name: str) -> object:
        raise OSError(name)

    return devices({}, lambda: LINES, TENSORFLOW.get, load=load)


def test_a_card_and_a_library_with_cuda_are_a_gpu() -> None:
    here = found()
    assert (here.kind, here.libraries) == ("gpu", ("tensorflow",))
    assert str(here.cards[0]) == "NVIDIA H100 80GB HBM3 (80 GiB, driver 550.54.15)"
    assert here.refusal("gpu", "stock") is None


@pytest.mark.parametrize(
    ("chosen", "uuids"),
    [
        ("1", ["GPU-bbbb2222"]),
        ("1,0", ["GPU-bbbb2222", "GPU-aaaa1111"]),
        ("GPU-bb", ["GPU-bbbb2222"]),
        ("0,7,1", ["GPU-aaaa1111"]),
        ("MIG-cc", ["MIG-cc"]),
    ],
)
def test_only_cards_that_cuda_may_see_are_found(chosen: str, uuids: list[str]) -> None:
    assert [card.uuid for card in found(CUDA_VISIBLE_DEVICES=chosen).cards] == uuids


def test_a_card_without_memory_of_its_own_has_none() -> None:
    (card,) = found("GPU-1, NVIDIA GB10, [N/A], 580.95.05\n").cards
    assert str(card) == "NVIDIA GB10 (driver 580.95.05)"


@pytest.mark.parametrize("chosen", ["", "-1", "GPU-"])
def test_hidden_cards_are_told_from_none(chosen: str) -> None:
    assert "hides every GPU" in found(CUDA_VISIBLE_DEVICES=chosen).problem


@pytest.mark.parametrize(
    ("packages", "cuda", "libraries"),
    [
        ({**TENSORFLOW, **JAX_13}, None, ("tensorflow",)),  # 550 is too old for CUDA 13
        ({"tensorflow": TENSORFLOW["tensorflow"]}, 12, ("tensorflow",)),
        ({"tensorflow": TENSORFLOW["tensorflow"]}, 13, ()),  # TensorFlow is made for CUDA 12
        ({"jax-cuda12-plugin": []}, None, ("jax",)),
    ],
)
def test_a_library_counts_where_its_cuda_fits_the_driver(
    packages: dict[str, list[str]], cuda: int | None, libraries: tuple[str, ...]
) -> None:
    assert found(packages=packages, cuda=cuda).libraries == libraries


@pytest.mark.parametrize(
    ("here", "why"),
    [
        (CPU, "no GPU"),
        (failing(FileNotFoundError()), "no GPU"),
        (failing(subprocess.CalledProcessError(9, "", "no driver\n")), "nvidia-smi fails (no dr"),
        (failing(subprocess.TimeoutExpired("nvidia-smi", 30)), "timed out"),
        (without_driver(), "the driver's libcuda.so.1 cannot be loaded"),
        (found("something else\n"), "nvidia-smi fails"),
        (found(packages={"tensorflow": TENSORFLOW["tensorflow"]}), "make setup GPU=1"),
        (found(packages=JAX_13), "driver 550.54.15 of NVIDIA H100 80GB HBM3 is too old"),
    ],
)
def test_what_is_missing_for_a_gpu_is_said_in_a_line(here: Devices, why: str) -> None:
    assert here.kind == "cpu"
    here.check("cpu", "fast")
    with pytest.raises(SettingsError, match=r"^--device gpu: ") as refused:
        here.check("gpu", "stock")
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)


def test_jax_without_cuda_beside_a_card_is_named_and_so_is_tensorflow() -> None:
    assert "--training grouped needs JAX with CUDA" in str(found().refusal("gpu", "grouped"))
    alone = found(packages={"jax-cuda12-plugin": []})
    assert "--training stock needs TensorFlow with CUDA" in str(alone.refusal("gpu", "stock"))
    assert alone.refusal("gpu", "grouped") is None


def test_another_kind_of_device_is_refused() -> None:
    with pytest.raises(SettingsError, match="choose cpu or gpu"):
        found().check("tpu", "stock")


def test_the_devices_of_a_cluster_are_what_its_runs_take() -> None:
    assert offered({}, "tcp://host:8786", {"GPU": 1.0}).kind == "gpu"
    cluster = offered({}, "tcp://host:8786")
    assert cluster.kind == "cpu"
    cluster.check("gpu", "stock")  # only its workers know


def test_workers_on_cards_see_one_each_and_are_neither_forked_nor_pinned() -> None:
    images = np.zeros((4, 8, 8, 1), np.float32)
    labels = np.arange(4, dtype=np.int32)
    data = Dataset("four", images, labels, images, labels, (0, 1, 2, 3), "f" * 64)
    engine = local_pool(data, 2, trainer=fake_gpu.train, gpus=("a", "b"))
    seen = []
    with closing(engine):
        for repeat in range(2):
            engine.submit(repeat, replace(RUN, repeat=repeat))
        while len(seen) < 2:
            event = engine.next_event()
            if isinstance(event, RunFinished):
                seen.append(json.loads(event.model or b""))
    assert {one["card"] for one in seen} == {"a", "b"}
    assert {one["cores"] for one in seen} == {cores()}
    assert not any(one["forked"] for one in seen)


def test_tensorflow_is_told_before_it_starts_to_share_a_card() -> None:
    code = (
        "import os; from study.training.startup import start_tensorflow\n"
        "try: start_tensorflow(1, 'gpu')\n"
        "except ValueError: print(*map(os.environ.get, "
        "('TF_FORCE_GPU_ALLOW_GROWTH', 'TF_ENABLE_ONEDNN_OPTS')))"
    )
    unset = ("TF_FORCE_GPU_ALLOW_GROWTH", "TF_ENABLE_ONEDNN_OPTS")
    environ = {name: value for name, value in os.environ.items() if name not in unset}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=environ | {"CUDA_VISIBLE_DEVICES": "-1"},
    )
    assert done.stdout.split() == ["true", "0"]


RUN = fakes.run_of(cast("Any", SimpleNamespace(configuration=(), repeat=0, epochs=None)))


def test_the_device_is_part_of_a_run_and_an_old_run_keeps_its_name() -> None:
    assert RUN.key == replace(RUN, device="cpu").key
    assert RUN.key != replace(RUN, device="gpu").key


def test_a_card_belongs_to_one_study_at_a_time(tmp_path: Path) -> None:
    first, second = found().cards
    with held([first], folder=str(tmp_path)) as mine:
        assert mine == (first,)
        with held([first, second], folder=str(tmp_path)) as rest:
            assert rest == (second,)
            with (
                pytest.raises(StudyLocked, match="another study trains on NVIDIA H100 80GB HBM3"),
                held([first], folder=str(tmp_path)),
            ):
                pass
    with held([first, second], folder=str(tmp_path)) as free:
        assert free == (first, second)


def test_no_more_cards_are_held_than_are_needed(tmp_path: Path) -> None:
    with held(found().cards, 1, str(tmp_path)) as mine:
        assert mine == found().cards[:1]


def test_without_a_card_there_is_nothing_to_hold(tmp_path: Path) -> None:
    with held([], folder=str(tmp_path)) as free:
        assert free == ()
    assert not list(tmp_path.iterdir())


class TensorFlow:
    """As much of it as choosing devices needs."""

    def __init__(self, *cards: str) -> None:
        self.chosen: list[Any] = []
        experimental = SimpleNamespace(enable_tensor_float_32_execution=self.chosen.append)
        self.config = SimpleNamespace(
            list_physical_devices=lambda _: list(cards),
            set_visible_devices=lambda devices, _: self.chosen.append(devices),
            experimental=experimental,
        )


def test_a_run_on_the_processor_sees_no_card() -> None:
    tensorflow = TensorFlow("GPU:0")
    _choose(tensorflow, "cpu")
    assert tensorflow.chosen == [[]]


def test_a_run_on_a_card_is_float32() -> None:
    tensorflow = TensorFlow("GPU:0")
    _choose(tensorflow, "gpu")
    assert tensorflow.chosen == [False]


def test_a_run_on_a_card_that_tensorflow_does_not_see_ends_the_study_in_a_line() -> None:
    with pytest.raises(SettingsError, match=r"TensorFlow sees no GPU on .*doctor"):
        _choose(TensorFlow(), "gpu")


def test_a_group_for_a_card_that_jax_does_not_see_is_not_trained_on_the_processor() -> None:
    code = "from study.training.grouped.startup import start_jax; start_jax('gpu')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1"},
    )
    assert done.stderr.splitlines()[-1].startswith("study.errors.SettingsError: JAX sees no GPU")


def told(repeat: int, **attributes: str) -> optuna.trial.FrozenTrial:
    spec = {"stage": "s", "option": 1, "params": {"width": 1}, "repeat": repeat, "reference": None}
    return create_trial(
        value=0.9, user_attrs=attributes, system_attrs={RUN_SPEC: spec | {"repeat": repeat}}
    )


@pytest.mark.parametrize(
    ("kinds", "counted"),
    [
        (["gpu", "cpu", "gpu"], [0, 2]),
        ([None, "cpu", "gpu"], [0, 1]),  # a run of a time when the processor was all there was
        (["gpu", None], [0]),
    ],
)
def test_only_runs_of_one_kind_of_device_count(kinds: list[str | None], counted: list[int]) -> None:
    study = optuna.create_study()
    for repeat, kind in enumerate(kinds):
        study.add_trial(told(repeat, **({"device": kind} if kind else {})))
    assert [row.repeat for row in StoredTrials()(study)] == counted


def test_a_run_that_has_not_said_its_device_yet_counts() -> None:
    study = optuna.create_study()
    study.add_trial(told(0, device="gpu"))
    trial = study.ask()
    trial.storage.set_trial_system_attr(trial._trial_id, RUN_SPEC, told(1).system_attrs[RUN_SPEC])
    assert [row.repeat for row in StoredTrials()(study)] == [0, 1]


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    """An empty one, in a folder with a space and some data."""
    monkeypatch.chdir(tmp_path)
    Path("fake.toml").write_text(SPACE)
    images = image_files.pictures(shape=(12, 12))
    Path(image_files.npz(Path(), x_train=images, x_test=None, y_test=None)).rename("data.npz")
    return Database.at(DEFAULT)


SPACE = """
name = "fake"
epochs = 2
batch_size = 10
repeats = 2
validation = { folds = 2 }
fixed = { k1 = 2, k2 = 2 }
[hyperparameters.filters]
options = [1, 2]
start = 1
"""


def prepared(database: Database, devices: Devices, **given: str) -> Prepared:
    options = {"data": "data.npz"} | given
    chosen = {name: Setting(value, "command line") for name, value in options.items()}
    return prepare("fake.toml", None, database, chosen, devices=devices)


def drive(study: Prepared, devices: Devices) -> None:
    """Drive the study, one run at a time, with a trainer that learns nothing."""
    execution = ExecutionOptions(jobs=1, devices=devices)
    launch(study, Observers(), execution, print, fake_gpu.train)


def made(study: Prepared) -> None:
    """Make the study, and train nothing."""
    storage.create(study.location.database.open(create=True), "fake", study.settings)


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Devices:
    """Two GPUs."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where their locks lie
    return found()


def test_a_study_on_a_gpu_records_it_with_every_run(database: Database, cards: Devices) -> None:
    drive(prepared(database, cards), cards)
    study, settings = storage.load(database.open())
    assert settings.device == "gpu"
    assert {row.device for row in StoredTrials()(study)} == {"gpu"}
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_a_study_leaves_cards_to_others_and_says_so(database: Database, cards: Devices) -> None:
    settings, said = prepared(database, cards).settings, []
    execution = ExecutionOptions(devices=cards)
    with held(cards.cards[:1]), alone_on_cards(settings, execution, said.append) as mine:
        assert mine.devices.cards == cards.cards[1:]
        assert jobs_of(settings, mine) == 1
    assert said == ["Only 1 of 2 GPUs are free of other studies"]


def test_a_study_that_finds_no_free_card_leaves_nothing_behind(
    database: Database, cards: Devices
) -> None:
    with held(cards.cards), pytest.raises(StudyLocked, match="--device cpu; nothing is lost"):
        drive(prepared(database, cards), cards)
    assert not database.exists


def test_runs_at_once_are_one_a_card_unless_more_are_asked_for(
    database: Database, cards: Devices
) -> None:
    settings = prepared(database, cards).settings
    assert jobs_of(settings, ExecutionOptions(devices=cards)) == 2
    assert jobs_of(settings, ExecutionOptions(devices=cards, jobs=5)) == 5


def test_a_study_that_began_on_a_gpu_is_not_resumed_without_one(
    database: Database, cards: Devices
) -> None:
    made(prepared(database, cards))
    for again in (lambda: prepare_again(None, database, None), lambda: prepared(database, CPU)):
        with pytest.raises(SettingsError, match=r"began on a GPU.*resume it where.*--name"):
            again()
    assert prepare_again(None, database, None, devices=cards).settings.device == "gpu"


def test_a_study_that_began_on_the_processor_stays_there(
    database: Database, cards: Devices
) -> None:
    made(prepared(database, CPU))
    assert prepared(database, cards).settings.device == "cpu"
    assert prepare_again(None, database, None, devices=cards).settings.device == "cpu"
    with pytest.raises(SettingsError, match=r"device \(cpu, not gpu\).*--name.*resume"):
        prepared(database, cards, device="gpu")
    with pytest.raises(SettingsError, match=r"began on the cpu.*leave --device out.*--name"):
        prepare_again(None, database, None, devices=cards, device="gpu")


def test_on_a_gpu_every_step_is_keras_own(database: Database, cards: Devices) -> None:
    settings = prepared(database, cards).settings
    assert settings["training"] == "stock"
    assert settings.versions["gpu"] == str(cards.cards[0])
    with pytest.raises(SettingsError, match="--training fast is the processor's"):
        prepared(database, cards, training="fast")


def test_a_gpu_that_is_not_there_leaves_no_study_behind(database: Database) -> None:
    with pytest.raises(SettingsError, match="no GPU"):
        prepared(database, CPU, device="gpu")
    assert not database.exists


def test_the_processor_can_be_chosen_beside_a_gpu(database: Database, cards: Devices) -> None:
    assert prepared(database, cards, device="cpu").settings.device == "cpu"


def test_a_study_of_a_time_without_devices_was_trained_on_the_processor(
    database: Database,
) -> None:
    stored = prepared(database, CPU).settings.to_dict()
    del stored["chosen"]["device"]
    assert Settings.from_dict(stored).device == "cpu"


def test_optuna_code_is_held_to_one_kind_of_device() -> None:
    study = optuna.create_study()
    study.add_trial(told(0, device="gpu"))
    objective = Objective(fakes.space(), cast("Any", SimpleNamespace(fingerprint="f")))
    with pytest.raises(SettingsError, match="another kind of device"):
        study.optimize(objective, n_trials=1)
