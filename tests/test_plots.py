"""Figures and tables of a study in a notebook: titles, units, and descriptions in words."""

import base64
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.figure
import mirror_fakes
import pytest
from fakes import IMAGES, drive, rows, space
from optuna.storages import InMemoryStorage

from study.plan.grid import Grid
from study.plan.plan import Plan
from study.plan.race import Race
from study.plan.sweep import OneAtATime
from study.report.contents import Contents
from study.report.effects import effects
from study.report.notebook import KINDS, Plots, plots, table_html
from study.space.settings import Setting
from study.text.tables import stage_tables, table


def studied(plan: Plan, sampler: str) -> Contents:
    """A study of fake curves."""
    storage = InMemoryStorage()
    state = drive(storage, plan=plan)
    settings = mirror_fakes.settings(epochs=4)
    chosen = {**settings.chosen, "sampler": Setting(sampler, "default")}
    trials = tuple(rows(storage))
    race = effects(plan, trials) if isinstance(plan, Race) else None
    settings = replace(settings, space=plan.space, chosen=chosen)
    return Contents("fake", settings, state, "complete", trials, effects=race)


@pytest.fixture(scope="module")
def sweep() -> Contents:
    return studied(OneAtATime(space(), images=IMAGES), "sweep")


def pictures(made: Plots) -> list[tuple[str, bytes]]:
    """The description and the PNG file of each picture of the HTML."""
    found = re.findall(
        r'<img alt="([^"]*)" src="data:image/png;base64,([^"]*)">', made._repr_html_()
    )
    return [(alt, base64.b64decode(source)) for alt, source in found]


@pytest.mark.parametrize("what", KINDS)
def test_every_figure_has_a_title_units_and_a_description(sweep: Contents, what: str) -> None:
    made = plots(sweep, what)
    assert len(made) == len(made.descriptions) == len(list(made)) > 0
    for figure in made:
        assert isinstance(figure, matplotlib.figure.Figure)
        assert figure.get_suptitle()
        labels = [axes.get_xlabel() + axes.get_ylabel() for axes in figure.axes]
        assert any("%" in label for label in labels)
    shown = pictures(made)
    assert [alt for alt, _ in shown] == list(made.descriptions)
    assert all(alt and image.startswith(b"\x89PNG") and len(image) > 5000 for alt, image in shown)


def test_a_figure_can_be_saved_and_keeps_one_title(sweep: Contents, tmp_path: Path) -> None:
    made = plots(sweep, "stages")
    for _ in range(2):
        made[0].savefig(tmp_path / "stage.svg")
    assert (tmp_path / "stage.svg").read_text().count("<!-- width") <= 2
    assert made[0].get_suptitle() == sweep.plan_state.stages[0].name
    assert [figure.get_suptitle() for figure in made[:2]] == ["width", "depth"]


def test_the_effects_of_a_sweep_are_the_means_that_it_measured(sweep: Contents) -> None:
    (figure,) = plots(sweep, "effects")
    drawn = {axes.get_title("left"): axes for axes in figure.axes if axes.axison}
    assert set(drawn) == {"width", "depth"}
    stage = sweep.plan_state.stages[0]
    marks = [line.get_ydata()[0] for line in drawn["width"].lines if line.get_marker() == "D"]
    assert marks == pytest.approx([100 * one.score.mean for one in stage.options if one.score])


@pytest.mark.parametrize(
    ("plan", "sampler"), [(Race(space(), seed=1), "race"), (Grid(space()), "grid")]
)
def test_other_samplers_show_the_effects_and_pairs_of_the_model_of_a_race(
    plan: Plan, sampler: str
) -> None:
    made = plots(studied(plan, sampler), "effects")
    assert [figure.get_suptitle() for figure in made] == [
        "The effect of each hyperparameter",
        "Interactions of pairs",
    ]


def test_a_study_without_runs_says_so(sweep: Contents) -> None:
    empty = replace(sweep, rows=(), plan_state=OneAtATime(space(), images=IMAGES).state([]))
    for what in ("curves", "effects"):
        assert plots(empty, what)._repr_html_() == "<p>No run has been trained yet.</p>"


def test_the_cells_of_a_table_are_text(sweep: Contents) -> None:
    html = table_html(table("<b>", ("<i>", "b"), [("<script>", "&")], total=3))
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "and 2 more" in html
    (first, *_) = stage_tables(sweep.plan_state, 2)
    assert table_html(first).count("font-weight:bold") == 1


def test_the_headings_of_a_stage_are_escaped(sweep: Contents) -> None:
    stage = replace(sweep.plan_state.stages[0], name='<x "y">')
    made = plots(replace(sweep, plan_state=replace(sweep.plan_state, stages=(stage,))), "stages")
    html: Any = made._repr_html_()
    assert "<x" not in html
    assert "&lt;x &quot;y&quot;&gt;" in html
