"""`study judge`: the same as scipy's tests, right by simulation, and one line for bad input."""

import json
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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "name them with --columns"),
        ("config,seed,score\nold,1,0.9\nold,1,0.8\n", "line 3: 'old' has repeat '1' twice"),
        ("config,seed,score\nold,1,0.9\nnew,1,oops\n", "line 3: score: 'oops' is no number"),
        ("config,seed,score\nold,1,0.9\nnew,1,0.8\n", "'old' has a single repeat"),
        ("config,score\nold,0.9\nold,0.9\nnew,0.9\nnew,0.9\n", "all scores are the same"),
        ("config,seed,score\nold,1,0.9\nold,2,0.8\n", "a comparison needs at least two"),
        ("", "name them with --columns"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, text: str, said: str) -> None:
    result = run(tmp_path / "r.csv", text)
    assert result.exit_code == 2
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
