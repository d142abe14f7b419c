"""Final models in MLflow: registered with an alias where there is one, and never in the way."""

# ruff: noqa: F811 - the mirror's fixtures are used by their names

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mirror_fakes import Made
from servers import Fault, no_fault
from test_mirror import (  # noqa: F401
    Place,
    anywhere,
    become_client,
    made,
    mflux,
    mirror,
    place,
    s3,
    server,
    serves,
    tracking,
)

from study.final.records import FinalModel
from study.final.registry import alias, register


def finals(opening: str = "abc") -> list[FinalModel]:
    """What finalize records of two members; the files are made up."""
    names = ["seed 1", "seed 2", "best by validation", "average of 2"]
    return [
        FinalModel(
            model=name,
            file=f"{name}.keras",
            members=("key",),
            configurations=({"filters": 16},),
            opening=opening,
            opened="2026-11-23T12:00:00+00:00",
            images=50,
            trained_on=100,
            measure="accuracy",
            value=0.95,
            low=0.9,
            high=1.0,
        )
        for name in names
    ]


def send(made: Made, place: Place, folder: Path, opening: str = "abc") -> list[str]:
    models = finals(opening)
    for final in models:
        (folder / final.file).write_bytes(final.model.encode())
    return register(made.study, made.settings, folder, models, place.target)


def rows(place: Place, query: str, *values: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(place.database)) as opened:
        return opened.execute(query, values).fetchall()


ALIASES = "SELECT alias FROM registered_model_aliases WHERE name = ? ORDER BY alias"


def test_only_the_best_and_the_average_have_an_alias() -> None:
    assert [alias(final.model) for final in finals()] == [None, None, "best", "average"]


def test_the_tables_of_the_last_model_are_sent_once(made, anywhere, tmp_path) -> None:
    for final in finals():
        (tmp_path / final.file).write_bytes(final.model.encode())
    tables = {"confusion.csv": b"label,a", "confusion.png": b"PNG"}
    sent: list[str] = []
    tracker = type(anywhere.target.tracker.connect(anywhere.target, None))
    upload = tracker.upload

    def counted(self: Any, remote: Any, artifact: Any, content: bytes) -> None:
        sent.append(f"{artifact.name}/{artifact.filename}")
        upload(self, remote, artifact, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracker, "upload", counted)
        for _ in range(2):
            register(made.study, made.settings, tmp_path, finals(), anywhere.target, tables)
    assert sent[:2] == ["test/confusion.csv", "test/confusion.png"]
    assert sum(name.startswith("test/") for name in sent) == 2
    assert len(sent) == 2 + len(finals())


def test_models_are_registered_once_and_a_server_without_a_registry_gets_tags(
    made, anywhere, tmp_path, request
) -> None:
    old = "old server" in request.node.name
    problems = send(made, anywhere, tmp_path)
    assert any("no registry" in problem for problem in problems) is old
    shown = anywhere.see(made)
    slots = {f"final abc {final.model}" for final in finals()}
    assert slots <= set(shown)
    assert {shown[slot].status for slot in slots} == {"FINISHED"}
    assert all(shown[slot].params == {"filters": "16"} for slot in slots)
    name = made.study.study_name
    if not old:
        assert rows(anywhere, ALIASES, name) == [("average",), ("best",)]
    else:
        assert shown["final abc average of 2"].tags["alias"] == "average"
    assert send(made, anywhere, tmp_path) == []
    assert set(anywhere.see(made)) == set(shown)
    mirror(made, anywhere)
    assert slots <= set(anywhere.see(made))


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore:.*AnyType")  # MLflow warns of its own scoring server
@pytest.mark.parametrize("anywhere", ["local store", "server", "server with S3"], indirect=True)
def test_the_best_model_and_the_average_are_served_by_name_on_pixels(
    made, anywhere, tmp_path, monkeypatch
) -> None:
    import keras
    import numpy as np

    from study.final.classifier import with_preprocessing
    from study.training.compiled import to_bytes
    from study.training.network import build_cnn

    built = [build_cnn(dict(made.start()), (28, 28, 1), 10) for _ in range(2)]
    members = [keras.models.clone_model(one) for one in built]  # not compiled
    made_of = {"best": members[:1], "average": members}
    files = {name: with_preprocessing(each, (28, 28, 1)) for name, each in made_of.items()}
    models = [final for final in finals() if alias(final.model)]
    for final in models:
        (tmp_path / final.file).write_bytes(to_bytes(files[alias(final.model)]))
    assert register(made.study, made.settings, tmp_path, models, anywhere.target) == []
    become_client(anywhere, monkeypatch)
    monkeypatch.setattr("mlflow.tracking._model_registry.utils._registry_uri", None)
    images = np.random.default_rng(1).integers(0, 256, (5, 28, 28, 1), np.uint8)
    for name, model in files.items():
        predicted = model.predict(images, verbose=0)
        assert serves(f"models:/{made.study.study_name}@{name}", images, predicted)


def test_a_server_that_fails_is_one_line_and_is_sent_the_rest_later(
    made, place, tracking, tmp_path
) -> None:
    for broken in ("/", "runs/create", "model-versions", "alias"):
        tracking.rule = lambda request, part=broken: Fault() if part in request.path else None
        (said,) = send(made, place, tmp_path)
        assert said.startswith("MLflow: ")
        assert "the models are saved" in said
    tracking.rule = no_fault
    assert send(made, place, tmp_path) == []
    assert len(place.see(made)) == len(finals())
    assert rows(place, ALIASES, made.study.study_name) == [("average",), ("best",)]


def test_an_alias_goes_back_to_models_that_are_asked_for_again(made, place, tmp_path) -> None:
    def named() -> list[tuple[str, int]]:
        query = "SELECT alias, version FROM registered_model_aliases WHERE name = ? ORDER BY alias"
        return rows(place, query, made.study.study_name)

    versions = {}
    for opening in ("abc", "def", "abc"):
        assert send(made, place, tmp_path, opening) == []
        assert named() == versions.setdefault(opening, named())
    assert versions["abc"] != versions["def"]


def test_a_file_that_is_gone_is_said_and_stops_nothing(made, place, tmp_path) -> None:
    said = register(made.study, made.settings, tmp_path, finals(), place.target)
    assert len(said) == len(finals())
    assert all(line.startswith("MLflow: the model of final abc ") for line in said)
    assert all("is gone: there is no" in line for line in said)
    assert rows(place, ALIASES, made.study.study_name) == []
