"""The command that replays a strategy, and the one that records a table."""

import json
from pathlib import Path

import pytest
from tables_fake import lines, written

from study.tuning.pruning import Margin

SPACE = """
name = "tiny"
data = "digits"
epochs = 1
batch_size = 100
repeats = 1
validation = { folds = 3 }
[hyperparameters.filters]
options = [2, 4]
start = 2
[fixed]
k1 = 3
k2 = 3
dense = 8
"""


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))


def replay(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    import replay

    monkeypatch.setattr("sys.argv", ["replay.py", *words, "--processes", "1"])
    replay.main()


def test_a_strategy_is_replayed_with_a_standard_error_beside_every_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = str(written(tmp_path / "table.jsonl", lines()))
    record = tmp_path / "record.jsonl"
    words = ["--studies", "8", "--jobs-in-study", "2", "--json", str(record)]
    for strategy in ("sweep", "random", "grid"):
        replay(monkeypatch, table, "--strategy", strategy, *words)
    said = capsys.readouterr().out
    assert said.count("regret") == said.count("within 0.1") == said.count("than the start") == 3
    sweep, _, grid = map(json.loads, record.read_text().splitlines())
    assert sweep["strategy"] == "sweep"
    assert set(sweep["regret"]) == {"value", "error"}
    assert grid["epochs"] == {"value": 12 * 3 * 5, "error": 0}


def test_a_run_that_was_stopped_at_its_last_epoch_is_trained_anew_where_it_is_wanted() -> None:
    from replay import make_plan
    from simulation import simulate
    from tables import Table

    table = Table.of(lines(noise=44), "noisy")
    plan = make_plan("sweep", {}, tie="best", score="mean of last 3", passes=2)
    margin = Margin(warmup=5, window=1, errors=0.3, least=0.001)
    found = simulate(table, plan, 100, margin=margin, limits=[1000])
    assert max(study.epochs for study in found) < 1000


def test_a_race_on_a_table_of_few_repeats_keeps_some_of_them_to_measure_its_leader_by() -> None:
    from replay import make_plan, stated
    from simulation import simulate
    from tables import Table

    table = Table.of(lines(repeats=4), "few")
    found = simulate(table, make_plan("race", {"tolerance": 0.1}), 3, stated=stated)
    assert all(one.stated and one.stated.reason for one in found)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--strategy", "sweeep"], "--sampler sweeep: no such sampler"),
        (["--pruner", "median"], "--pruner median: a replay has none or sweep"),
        (["--repeats", "5"], "asks for repeat 5, and the table has 4"),
    ],
)
def test_what_cannot_be_replayed_is_one_line_and_exit_code_2(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = str(written(tmp_path / "table.jsonl", lines()))
    with pytest.raises(SystemExit) as ended:
        replay(monkeypatch, table, "--studies", "1", *words)
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert said in error
    assert error.count("\n") == 1


def test_a_table_with_a_missing_run_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = str(written(tmp_path / "table.jsonl", lines()[1:]))
    with pytest.raises(SystemExit) as ended:
        replay(monkeypatch, table)
    assert ended.value.code == 2
    assert "is missing" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.tensorflow
def test_a_table_is_recorded_and_more_repeats_train_only_what_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import record_table
    from tables import load

    (tmp_path / "tiny.toml").write_text(SPACE)
    words = [str(tmp_path / "tiny.toml"), "--work", str(tmp_path / "work"), "--jobs", "1"]
    for repeats in (1, 2):
        monkeypatch.setattr("sys.argv", ["record_table.py", *words, "--repeats", str(repeats)])
        record_table.main()
        table = load(tmp_path / "work" / "tiny.jsonl.gz")
        assert (table.repeats, table.epochs) == (repeats, 1)
    assert {p.name: p.options for p in table.space.hyperparameters}["filters"] == (2, 4)
    recorded = (tmp_path / "work" / "tiny.jsonl").read_text().splitlines()
    assert [json.loads(line)["repeat"] for line in recorded] == [0, 0, 1, 1]
