"""`study judge`: the same as scipy's tests, right by simulation, and one line for bad input."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner, Result

from study.cli.app import app
from study.plan.judge import judge

RNG = np.random.default_rng(1)


def run(path: Path, text: str, *words: str) -> Result:
    path.write_text(text)
    return CliRunner().invoke(app, ["judge", str(path), *words])


def table(**scores: list[float]) -> dict[str, dict[str, float]]:
    return {name: {str(r): value for r, value in enumerate(held)} for name, held in scores.items()}


def test_paired_repeats_are_judged_as_scipy_judges_them() -> None:
    base, other = RNG.normal(0.9, 0.1, 6), RNG.normal(0.95, 0.1, 6)
    [one] = judge(table(base=list(base), other=list(other)), "base")
    interval = stats.ttest_rel(other, base).confidence_interval(0.95)
    assert one.paired
    assert one.interval == pytest.approx((interval.low, interval.high))


def test_unpaired_repeats_are_judged_as_scipy_judges_them() -> None:
    base, other = RNG.normal(0.9, 0.1, 6), RNG.normal(0.95, 0.2, 4)
    results = table(base=list(base)) | {"other": {f"x{r}": v for r, v in enumerate(other)}}
    [one] = judge(results, "base")
    interval = stats.ttest_ind(other, base, equal_var=False).confidence_interval(0.95)
    assert not one.paired
    assert one.interval == pytest.approx((interval.low, interval.high))


def test_of_equal_configurations_at_most_one_table_in_twenty_is_called_different() -> None:
    wrong = 0
    for _ in range(400):
        shared = RNG.normal(0, 0.1, 5)
        results = table(**{name: list(shared + RNG.normal(0.9, 0.01, 5)) for name in "abcd"})
        wrong += any(one.verdict != "tie" for one in judge(results, "a"))
    assert wrong <= 32  # 20 expected at most; 32 is beyond the 99.5th percentile


def test_the_stated_number_of_repeats_decides() -> None:
    [tie] = judge(table(a=[0.90, 0.91, 0.92], b=[0.91, 0.905, 0.935]), "a")
    assert tie.verdict == "tie"
    assert tie.more
    number, decided = 3 + tie.more, 0
    spread = float(np.std([0.01, -0.005, 0.015], ddof=1))
    for _ in range(200):
        pairs = RNG.normal(tie.difference, spread, number)
        [one] = judge(table(a=[0.0] * number, b=list(pairs)), "a")
        decided += one.verdict == "better"
    assert decided >= 140


def test_the_command_says_better_and_exits_with_0(tmp_path: Path) -> None:
    text = "config,seed,score\nold,1,0.90\nold,2,0.91\nnew,1,0.95\nnew,2,0.961\n"
    result = run(tmp_path / "r.csv", text)
    assert result.exit_code == 0
    assert "new: better than old" in result.stdout
    again = run(tmp_path / "r.csv", text, "--minimize", "--json")
    assert again.exit_code == 1
    assert json.loads(again.stdout)["judgements"][0]["verdict"] == "worse"


def test_differences_without_a_spread_decide_nothing() -> None:
    [one] = judge(table(a=[0.90, 0.91, 0.92], b=[0.94, 0.95, 0.96]), "a")
    assert (one.verdict, one.interval, one.more) == ("tie", None, None)
    assert one.difference == pytest.approx(0.04)


def test_repeats_that_only_one_configuration_has_are_not_counted_among_the_pairs() -> None:
    results = {"a": {"1": 0.9, "2": 0.8, "3": 0.7}, "b": {"2": 0.95, "3": 0.9, "4": 0.1}}
    [one] = judge(results, "a")
    assert (one.paired, one.repeats) == (True, 2)


GOOD = "config,seed,score\nold,1,0.90\nold,2,0.91\nnew,1,0.95\nnew,2,0.961\n"


@pytest.mark.parametrize("delimiter", [";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_what_a_spreadsheet_exports_is_read(tmp_path: Path, delimiter: str, encoding: str) -> None:
    (tmp_path / "r.csv").write_text(GOOD.replace(",", delimiter), encoding)
    result = CliRunner().invoke(app, ["judge", str(tmp_path / "r.csv")])
    assert result.exit_code == 0, result.output
    assert "new: better than old" in result.stdout


def test_a_name_or_repeat_that_is_written_in_two_ways_is_one(tmp_path: Path) -> None:
    text = GOOD.replace("old,2", "old,2.0").replace("old,", "caf\u00e9,", 1)
    result = run(tmp_path / "r.csv", text.replace("old,", "cafe\u0301,"))
    assert result.exit_code == 0, result.output
    assert "in pairs, 2 repeats" in result.stdout


def test_a_named_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "r.csv")
    result = CliRunner().invoke(app, ["judge", str(tmp_path / "r.csv")])
    assert result.exit_code == 2
    assert "not a regular file" in result.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("config,seed,score\n", "no row below a header"),
        ("config,seed,score\nold,1,1,234.5\n", "line 2: 4 values where the header has 3"),
        ("config,seed,score,score\nold,1,0.9,0.1\n", "has two columns score"),
        ("config,seed,score\nold,1,1e300\n", "'1e300' is not a number; give a number of less"),
        ("config;seed;score\nold;1;0,9\n", "'0,9' is not a number; give a number of less"),
        ("a,b\n1,2\n", "name them with --columns"),
        ("config,seed,score\nold,1,0.9\nold,1,0.8\n", "line 3: 'old' has repeat '1' twice"),
        ("config,seed,score\nold,1,0.9\nnew,1,oops\n", "line 3: score: 'oops' is not a number"),
        ("config,seed,score\nold,1,0.9\nnew,1,0.8\n", "'old' has a single repeat"),
        ("config,score\nold,0.9\nold,0.9\nnew,0.9\nnew,0.9\n", "all scores are the same"),
        ("config,seed,score\nold,1,0.9\nold,2,0.8\n", "a comparison needs at least two"),
        ("", "no row below a header"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, text: str, said: str) -> None:
    result = run(tmp_path / "r.csv", text)
    assert result.exit_code == 2
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
