"""GPUs are found, chosen, recorded and kept to; those here are pretended."""

import json
import os
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_gpu
import image_files
import pytest
from engine_contract import dataset, ended, run_of

from study.errors import SettingsError, StudyLocked
from study.running import checks
from study.running.driver import Observers
from study.running.launch import ExecutionOptions, _free_cards, jobs_of, launch
from study.running.prepare import Prepared, prepare, prepare_again
from study.space.settings import Setting
from study.storage import database as storage
from study.storage.location import DEFAULT, Database
from study.storage.trials import StoredTrials
from study.training.train import _choose
from study.workers.devices import CPU, Devices, available_devices, devices, held
from study.workers.machine import affinity
from study.workers.pool import local_pool

LINES = (
    "GPU-aaaa1111, NVIDIA H100 80GB HBM3, 81559, 550.54.15\n"
    "GPU-bbbb2222, NVIDIA H100 80GB HBM3, 81559, 550.54.15\n"
)
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


def found(lines: str = LINES, seen: dict[str, int] | None = None, **environ: str) -> Devices:
    """The devices if nvidia-smi says so and the libraries see as many."""
    counts = {"tensorflow": 2} if seen is None else seen
    return devices(environ, lambda: lines, lambda name: (counts.get(name, 0), "no CUDA"))


def failing(error: Exception) -> Devices:
    def ask() -> str:
        raise error

    return devices({}, ask)


@pytest.mark.parametrize(
    ("chosen", "uuids"),
    [
        (None, ["GPU-aaaa1111", "GPU-bbbb2222"]),
        ("1,0", ["GPU-bbbb2222", "GPU-aaaa1111"]),
        ("GPU-bb", ["GPU-bbbb2222"]),
        ("MIG-cc", ["MIG-cc"]),
        ("", []),
        ("-1", []),
        ("GPU-", []),
    ],
)
def test_the_cards_that_cuda_may_show_are_found(chosen: str | None, uuids: list[str]) -> None:
    here = found(**({} if chosen is None else {"CUDA_VISIBLE_DEVICES": chosen}))
    assert [card.uuid for card in here.cards] == uuids
    assert here.kind == ("gpu" if uuids else "cpu")
    assert uuids or "hides every GPU" in here.problem


def test_a_card_is_described() -> None:
    assert str(found().cards[0]) == "NVIDIA H100 80GB HBM3 (80 GiB, driver 550.54.15)"
    [card] = found("GPU-1, NVIDIA GB10, [N/A], 580.95.05\n").cards
    assert str(card) == "NVIDIA GB10 (driver 580.95.05)"


def test_a_library_that_is_asked_says_how_many_cards_it_sees() -> None:
    """Here it sees none, as CUDA is not installed."""
    from study.workers.devices import count

    assert count("jax")[0] == 0


@pytest.mark.parametrize(
    ("here", "why"),
    [
        (found(""), "nvidia-smi shows no GPU here"),
        (failing(subprocess.CalledProcessError(9, "", "no driver\n")), "nvidia-smi fails (no dr"),
        (failing(subprocess.TimeoutExpired("nvidia-smi", 30)), "timed out"),
        (found("something else\n"), "nvidia-smi fails"),
        (
            found(seen={}),
            "no library sees it (tensorflow: no CUDA, jax: no CUDA): make setup GPU=1",
        ),
        (found(seen={"jax": 2}), "tensorflow does not see it: make setup GPU=1"),
    ],
)
def test_what_is_missing_for_a_gpu_is_said_in_a_line(here: Devices, why: str) -> None:
    here.check("cpu", "tensorflow")
    with pytest.raises(SettingsError, match=r"^--device gpu: ") as refused:
        here.check("gpu", "tensorflow")
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_devices_of_a_cluster_are_what_its_runs_take() -> None:
    assert available_devices({}, "tcp://host:8786", {"GPU": 1.0}).kind == "gpu"
    cluster = available_devices({}, "tcp://host:8786")
    assert cluster.kind == "cpu"
    cluster.check("gpu", "tensorflow")  # only its workers know


def test_workers_on_cards_see_one_each_and_are_neither_forked_nor_pinned() -> None:
    with closing(local_pool(dataset(), 2, trainer=fake_gpu.train, gpus=("a", "b"))) as engine:
        engine.submit(0, replace(run_of(), epochs=10**6))
        seen = [json.loads(ended(engine, run_of(1), key=1)[1])]
        engine.stop(0)
        seen.append(json.loads(ended(engine, run_of(2), key=2)[1]))
    assert seen[0]["card"] in {"a", "b"}
    assert {one["cores"] for one in seen} == {len(affinity())}
    assert not any(one["forked"] for one in seen)


def tensorflow_with(*cards: str) -> Any:
    """As much of TensorFlow as choosing devices needs, and what was chosen."""
    chosen: list[Any] = []
    experimental = SimpleNamespace(enable_tensor_float_32_execution=chosen.append)
    config = SimpleNamespace(
        list_physical_devices=lambda _: list(cards),
        set_visible_devices=lambda devices, _: chosen.append(devices),
        experimental=experimental,
    )
    return SimpleNamespace(config=config, chosen=chosen)


def test_a_run_on_the_processor_sees_no_card_and_one_on_a_card_is_float32() -> None:
    for device, chosen in (("cpu", [[]]), ("gpu", [False])):
        _choose(tensorflow := tensorflow_with("GPU:0"), device)
        assert tensorflow.chosen == chosen
    with pytest.raises(SettingsError, match=r"TensorFlow sees no GPU on .*doctor"):
        _choose(tensorflow_with(), "gpu")


def test_a_group_for_a_card_that_jax_does_not_see_is_not_trained_on_the_processor() -> None:
    code = "from study.workers.jax.engine import start_jax; start_jax('gpu')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1"},
    )
    assert done.stderr.splitlines()[-1].startswith("study.errors.SettingsError: JAX sees no GPU")


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    """An empty one, in a folder with a space and some data."""
    monkeypatch.chdir(tmp_path)
    Path("fake.toml").write_text(SPACE)
    images = image_files.pictures(shape=(12, 12))
    Path(image_files.npz(Path(), x_train=images, x_test=None, y_test=None)).rename("data.npz")
    return Database.at(DEFAULT)


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Devices:
    """Two GPUs that TensorFlow sees."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return found()


def prepared(database: Database, here: Devices, **given: Any) -> Prepared:
    options = {"data": "data.npz", "confirm": 0} | given
    chosen = {name: Setting(value, "command line") for name, value in options.items()}
    return prepare("fake.toml", None, database, chosen, devices=here)


def drive(study: Prepared, here: Devices) -> None:
    """Drive the study, one run at a time, with a trainer that learns nothing."""
    execution = ExecutionOptions(jobs=1, devices=here)
    launch(study, Observers(), execution, print, fake_gpu.train)


def made(study: Prepared) -> None:
    """Make the study, and train nothing."""
    storage.create(study.location.database.open(create=True), "fake", study.settings)


def test_a_card_belongs_to_one_study_at_a_time(cards: Devices) -> None:
    first, second = cards.cards
    with held([first]) as mine:
        assert mine == (first,)
        with held([first, second]) as rest:
            assert rest == (second,)
            with pytest.raises(StudyLocked, match="another study trains on NVIDIA"), held([first]):
                pass
    with held([first, second], most=1) as free:
        assert free == (first,)
    with held([]) as free:
        assert free == ()


def test_a_study_on_a_gpu_records_it_with_every_run(database: Database, cards: Devices) -> None:
    drive(prepared(database, cards), cards)
    study, settings = storage.load(database.open())
    assert settings.device == "gpu"
    assert settings.versions["gpu"] == str(cards.cards[0])
    assert {trial.device for trial in StoredTrials()(study)} == {"gpu"}
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_a_study_leaves_cards_to_others_and_says_so(database: Database, cards: Devices) -> None:
    settings, said = prepared(database, cards).settings, []
    execution = ExecutionOptions(devices=cards)
    assert jobs_of(settings, execution) == 2
    assert jobs_of(settings, replace(execution, jobs=5)) == 5
    with held(cards.cards[:1]), _free_cards(settings, execution, said.append) as mine:
        assert mine.devices.cards == cards.cards[1:]
        assert jobs_of(settings, mine) == 1
    assert said == ["Only 1 of 2 GPUs are free of other studies"]
    with held(cards.cards), pytest.raises(StudyLocked, match="--device cpu; nothing is lost"):
        drive(prepared(database, cards), cards)
    assert not database.exists


def test_a_study_keeps_to_the_device_it_began_on(database: Database, cards: Devices) -> None:
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


@pytest.mark.parametrize(
    ("libraries", "given", "training", "jobs"),
    [
        ((), {}, "fast", None),
        (("tensorflow",), {}, "stock", 2),
        (("tensorflow", "jax"), {}, "grouped", 16),
        (("tensorflow", "jax"), {"training": "stock"}, "stock", 2),
        (("tensorflow", "jax"), {"device": "cpu"}, "fast", None),
    ],
)
def test_the_default_training_fits_the_device(
    database: Database, cards: Devices, libraries: Any, given: Any, training: str, jobs: int | None
) -> None:
    here = replace(cards, libraries=libraries) if libraries else CPU
    settings = prepared(database, here, **given).settings
    assert settings["training"] == training
    assert ("jax" in settings.versions) == (training == "grouped")
    if jobs:
        assert jobs_of(settings, ExecutionOptions(devices=here)) == jobs
        assert jobs_of(settings, ExecutionOptions(devices=here, jobs=5)) == 5


@pytest.mark.parametrize(
    ("devices_here", "given", "said"),
    [
        (CPU, {"training": "group"}, "--training group: choose fast, grouped, stock"),
        (CPU, {"device": "gpu"}, "--device gpu: nvidia-smi shows no GPU"),
        (CPU, {"device": "tpu"}, "--device tpu: choose cpu or gpu"),
        (found(), {"training": "fast"}, "--training fast is for the processor: leave it out"),
        (found(), {"training": "grouped"}, "--device gpu: jax does not see it"),
        (replace(CPU, remote=True), {"training": "grouped"}, "one machine: leave --scheduler out"),
    ],
)
def test_what_cannot_be_chosen_is_said_and_leaves_no_study_behind(
    database: Database, devices_here: Devices, given: dict[str, str], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        prepared(database, devices_here, **given)
    assert not database.exists


def test_without_jax_the_cure_is_named(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"needs jax: pip install '\.\[jax\]'"):
        prepared(database, CPU, training="grouped")
