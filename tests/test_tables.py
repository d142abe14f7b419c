"""A table of curves is read whole, or refused in one line."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tables_fake import IMAGES, lines, written

Runs = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))


def test_a_table_of_any_names_and_options_is_a_space_with_curves(tmp_path: Path) -> None:
    from tables import load

    runs = lines()
    table = load(written(tmp_path / "some.jsonl", runs[::-1]))
    options = {p.name: p.options for p in table.space.hyperparameters}
    assert options == {
        "units": (8, 16, 32),
        "learning_rate": ("low", "high"),
        "noisy": (False, True),
    }
    assert (table.repeats, table.epochs, table.images) == (4, 5, IMAGES)
    for run in runs:
        units, rate, noisy = run["params"].values()
        place = table.index[("units", units), ("learning_rate", rate), ("noisy", noisy)]
        assert table.val_acc[place, run["repeat"]].tolist() == run["val_acc"]
        assert table.test_acc[place, run["repeat"]] == run["test_acc"]
    best = dict(table.configurations[table.truth.argmax()])
    assert best == {"units": 32, "learning_rate": "low", "noisy": False}


def test_a_gzipped_table_is_the_same(tmp_path: Path) -> None:
    from tables import load

    plain = written(tmp_path / "some.jsonl", lines())
    (tmp_path / "some.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    assert (load(tmp_path / "some.jsonl.gz").val_acc == load(plain).val_acc).all()


def _without_loss(runs: Runs) -> None:
    for run in runs:
        del run["val_loss"], run["seconds"]


def test_losses_and_seconds_may_be_left_out(tmp_path: Path) -> None:
    from tables import load

    runs = lines()
    _without_loss(runs)
    table = load(written(tmp_path / "some.jsonl", runs))
    assert table.val_loss is None
    assert table.seconds is None


SPOILED: dict[str, Callable[[Runs], object]] = {
    "repeat 1 of units=32, learning-rate=high, noisy=True is missing": lambda r: r.pop(1),
    "val_acc has 4 epochs, not 5": lambda r: r[3]["val_acc"].pop(),
    "seconds has 6 epochs, not 5": lambda r: r[3]["seconds"].append(1.0),
    "line 3: valacc: unknown key; did you mean val_acc": lambda r: r[2].update(valacc=[]),
    "line 2: test_acc is missing": lambda r: r[1].pop("test_acc"),
    "line 4: test_acc: 97.5 should be less": lambda r: r[3].update(test_acc=97.5),
    "line 1: test_acc: NaN should be a finite": lambda r: r[0].update(test_acc=float("nan")),
    'line 5: repeat: "0" should be a valid integer': lambda r: r[4].update(repeat="0"),
    "is there twice": lambda r: r.append(r[0]),
    "line 2: params: units; line 1 has": lambda r: r[1].update(params={"units": 8}),
    "params.units: None should be": lambda r: r[0]["params"].update(units=None),
    "val_acc.0: None should be a valid number": lambda r: r[0].update(val_acc=[None] * 5),
    "holds no line": lambda r: r.clear(),
}


@pytest.mark.parametrize("said", SPOILED)
def test_a_spoiled_table_is_refused_in_one_line(said: str, tmp_path: Path) -> None:
    from tables import TableError, load

    runs = lines()
    SPOILED[said](runs)
    path = written(tmp_path / "some.jsonl", runs)
    with pytest.raises(TableError) as caught:
        load(path)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    from tables import TableError, load

    (tmp_path / "text.jsonl").write_text("not json\n")
    (tmp_path / "text.jsonl.gz").write_text("not gzipped\n")
    for name, said in (
        ("text.jsonl", "line 1 is not JSON"),
        ("text.jsonl.gz", "not a gzipped"),
        ("none.jsonl", "no such file"),
    ):
        with pytest.raises(TableError, match=said):
            load(tmp_path / name)
