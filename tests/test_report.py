"""The report of a study: what its figures show, what its page says, and how it is written."""

import csv
import io
import itertools
import math
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import mirror_fakes
import pytest
from fakes import IMAGES, drive, rows, space
from optuna.storages import InMemoryStorage
from plan_fakes import EAGER, row_of, space_of
from typer.testing import CliRunner

from study.cli.app import app
from study.errors import StorageError
from study.final.records import FINALS, FinalModel
from study.plan.budget import Budget
from study.plan.plan import Confirmation, Plan, RunSpec
from study.plan.race import RACE, Race
from study.plan.results import StoredTrial
from study.plan.search import SEARCH, Search
from study.plan.statistics import Score
from study.plan.sweep import OneAtATime
from study.report import canvas, cost, curves, stages, write
from study.report.contents import Contents, read
from study.report.effects import effects
from study.report.page import Figures, saved_epochs, time_spent
from study.report.page import page as page_of
from study.report.write import PAGE, files, report
from study.space.file import load
from study.space.metric import ACCURACY
from study.space.model_source import ModelSource, NetworkFacts
from study.space.search_space import SearchSpace
from study.space.settings import Setting
from study.storage.location import Database
from study.text import sentences as words
from study.text.tables import MOST_OPTIONS
from study.text.view import INTERVAL, interval, views
from study.tuning.pruning import SweepPruner

WIDE = space(
    hyperparameters={
        "width": {"options": [1, 2], "start": 2},
        "depth": {"options": [1, 2, 3], "start": 2},
    }
)


def told(plan: Plan | None = None, name: str = "fake", **given: Any) -> Contents:
    """A study of fake curves, in which width 1 is stopped in its first epoch."""
    plan = plan or OneAtATime(WIDE, images=IMAGES)
    storage = InMemoryStorage()
    swept = isinstance(plan, OneAtATime)
    given |= {"pruner": SweepPruner(IMAGES, EAGER)} if swept else {}
    plan_state = drive(storage, plan=plan, **given)
    settings = replace(mirror_fakes.settings(epochs=4), space=plan.space)
    return Contents(name, settings, plan_state, "complete", tuple(rows(storage)))


@pytest.fixture(scope="module")
def contents() -> Contents:
    return told()


@pytest.fixture(scope="module")
def made(contents: Contents) -> dict[str, bytes]:
    return files(contents)


@pytest.fixture(scope="module")
def page(made: dict[str, bytes]) -> str:
    return made[PAGE].decode()


def text_of(contents: Contents) -> str:
    """The page without its figures, whose drawing takes most of the time."""
    return page_of(contents, Figures())


class Reader(HTMLParser):
    """Checks that what is opened is closed, and collects what is looked at here."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id"]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def count(self, wanted: str) -> int:
        return sum(tag == wanted for tag, _ in self.tags)


# Figures ---------------------------------------------------------------------------------------


def test_an_interval_has_no_accuracy_above_one() -> None:
    assert interval(Score(3, 0.97, 0.01, (0.93, 1.01)), ACCURACY) == (0.93, 1.0)
    assert interval(Score(1, 0.97, 0.01), ACCURACY) is None


def test_a_stage_shows_every_repeat_and_where_a_stopped_one_was(contents: Contents) -> None:
    stage = contents.plan_state.stages[0]
    stopped, kept = views(stage)
    assert (len(stopped.values), len(stopped.stopped), stopped.mean) == (0, 1, None)
    assert (len(kept.values), len(kept.stopped), kept.kind) == (2, 0, "selected")
    assert kept.interval is not None
    assert kept.interval[0] < min(kept.values) <= max(kept.values) < kept.interval[1]
    late = replace(stopped.option, rows=(kept.option.rows[0], *stopped.option.rows))
    view, _ = views(replace(stage, options=(late, kept.option)))
    assert (len(view.values), len(view.stopped), view.mean) == (1, 1, None)


def test_a_stage_draws_the_paired_gap_that_decides_beside_the_means(contents: Contents) -> None:
    decided = contents.plan_state.stages[1]
    assert any(option.gap for option in decided.options)
    assert "behind the best mean, points" in stages.stage_figure(decided, 2, 2).picture.svg
    still_open = OneAtATime(WIDE, images=IMAGES).state(contents.rows[:3]).stages[0]
    assert "behind the best" not in stages.stage_figure(still_open, 2, 1).picture.svg


def test_an_option_whose_run_failed_shows_the_reason_everywhere(contents: Contents) -> None:
    first, *others = contents.rows
    gone = replace(first, state="failed", value=None, attributes={"failure": "loss is NaN"})
    plan_state = OneAtATime(WIDE, images=IMAGES).state([gone, *others])
    broken = replace(contents, plan_state=plan_state, rows=(gone, *others))
    made = files(broken)
    assert ">failed</text>" in made[PAGE].decode()
    for name in (PAGE, "stages.csv", "runs.csv"):
        assert "loss is NaN" in made[name].decode()


def test_every_run_has_a_curve_and_a_stopped_one_ends_where_it_was_stopped(
    contents: Contents,
) -> None:
    panels = curves.panels(contents.plan_state, contents.rows)
    own = [line.number for panel in panels for line in panel.lines if not line.reused]
    assert sorted(own) == [row.number for row in contents.rows]
    (stopped,) = [line for line in panels[0].lines if line.end == "pruned"]
    assert len(stopped.values) == 1
    depth = panels[1]  # draws the runs again that it has from the stage before
    assert {(depth.options[line.option], line.repeat) for line in depth.lines if line.reused} == {
        ("2", 0),
        ("2", 1),
    }


def test_epochs_that_were_not_trained_are_counted_by_reason(contents: Contents) -> None:
    reused, repeats, tails = saved_epochs(contents.plan_state, epochs=4, repeats=2).values()
    assert repeats == 4  # width 1, repeat 2
    assert tails == 3  # width 1, repeat 1 after its first epoch
    assert reused >= 8  # width 2 stands for depth 2
    runs, _, saved = time_spent(contents)
    epochs = 1 + 4 * (len(contents.rows) - 1)
    assert f"{epochs} epochs were trained in {0.5 * epochs:.0f} s" in runs
    assert saved.startswith(f"{reused + repeats + tails} epochs (about ")


def test_more_curves_than_can_be_seen_are_thinned_evenly_and_the_figure_says_so(
    contents: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert canvas.spaced(range(10), 4) == [0, 3, 6, 9]
    monkeypatch.setattr(curves, "MOST_LINES", 2)
    panel = curves.panels(contents.plan_state, contents.rows)[1]
    assert len(panel.lines) < panel.runs
    assert f"{len(panel.lines)} of {panel.runs} runs are drawn: evenly" in curves.caption(panel)
    assert sum(line.kind == "selected" for line in panel.lines) == 2


def panel_of(*kinds: curves.Kind, accuracy: float = 0.9) -> curves.Panel:
    """A panel with a run for every option."""
    lines = tuple(
        curves.Line(place, place, 0, kind, False, "complete", (0.9, accuracy))
        for place, kind in enumerate(kinds)
    )
    return curves.Panel("p", tuple(map(str, range(len(lines)))), lines, len(lines), ACCURACY)


@pytest.mark.parametrize("others", [1, 4, 9])
def test_a_colour_means_the_same_in_every_figure(others: int) -> None:
    colours = curves.colours_of(panel_of("other", "selected", "best", *["other"] * (others - 1)))
    selected, best = colours.pop(1), colours.pop(2)
    assert (selected, best) == (canvas.KINDS["selected"], canvas.KINDS["best"])
    assert not {selected, best} & set(colours.values())
    assert len(set(colours.values())) == (others if others <= 4 else 1)


def test_no_axis_of_an_accuracy_has_a_tick_beyond_a_hundred_percent(contents: Contents) -> None:
    lines = curves.draw(panel_of("selected", "other", accuracy=1.0), "curves")
    perfect = [
        replace(row, value=1.0, curve={"val_accuracy": (0.9, 1, 1, 1)}) for row in contents.rows
    ]
    plan_state = OneAtATime(WIDE, images=IMAGES).state(perfect)
    stage = stages.stage_figure(plan_state.stages[0], 2, 1).picture
    for picture in (lines, stage):
        assert max(float(text) for text in re.findall(r">([\d.]+)</text>", picture.svg)) == 100
    found = cost.cost_figure(plan_state)
    assert found is not None
    assert not re.findall(r">100[.][\d]*[1-9]\d*</text>", found.picture.svg)


# The page --------------------------------------------------------------------------------------


def test_the_page_is_well_formed_and_needs_nothing_from_elsewhere(page: str) -> None:
    reader = Reader(page)
    assert len(set(reader.ids)) == len(reader.ids)
    assert reader.count("script") == reader.count("link") == reader.count("img") == 0
    assert "http" not in page
    assert "url(" not in page.replace("url(#", "")
    links = re.findall(r'href="([^"]*)"', page)
    assert {link.removeprefix("#") for link in links} <= set(reader.ids)


def test_headings_are_in_order_and_there_is_one_of_the_first_rank(page: str) -> None:
    ranks = [int(tag[1]) for tag, _ in Reader(page).tags if re.fullmatch("h[1-6]", tag)]
    assert ranks.count(1) == 1
    assert all(below <= above + 1 for above, below in itertools.pairwise(ranks))


def test_every_figure_has_words_for_those_who_do_not_see_it_and_its_numbers(page: str) -> None:
    reader = Reader(page)
    images = [given for tag, given in reader.tags if given.get("role") == "img"]
    assert len(images) == reader.count("figure") == reader.count("svg") > 0
    assert all(image["aria-label"] for image in images)
    tables, curves_ = page.count("The numbers of this figure"), page.count(" runs. The numbers")
    assert tables + curves_ == len(images)
    assert reader.count("caption") == reader.count("table")


def test_the_page_says_the_answer_what_was_stopped_and_how_to_repeat_it(page: str) -> None:
    assert "Use width=2" in page
    assert re.search(r"1: behind by \d+\.\d points at epoch 1", page)
    assert "The test set was never used" in page
    assert page.count(INTERVAL) == 2  # what each interval is about
    assert "study run smoke --name fake" in page
    assert "f" * 64 in page


def test_colours_follow_the_reader_s_scheme(page: str) -> None:
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    svgs = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert "var(--selected)" in svgs
    assert set(re.findall(r"var\((--\w+)\)", page)) <= set(re.findall(r"(--\w+):", page))
    assert not re.findall(r"(?:fill|stroke): #(?!ffffff|000000)\w+", svgs)


def test_names_and_options_that_look_like_html_are_text_in_page_and_figures() -> None:
    odd = space(hyperparameters={"width": {"options": ["<b>$x$&", "it's"], "start": "it's"}})
    found = told(OneAtATime(odd), name="<script>alert('1')</script> & \"$x$\"", train=_flat)
    page = files(found)[PAGE].decode()
    assert Reader(page).count("b") == Reader(page).count("script") == 0
    assert "&lt;script&gt;" in page
    assert "&lt;b&gt;$x$&amp;" in page


def _flat(run):
    """Runs whose accuracy does not depend on anything."""
    from study.training.run import Epoch

    for number in range(run.epochs):
        yield Epoch(number, 0.9, 0.1, 0.9, 0.1, 0.5, 1e9 + number)
    return b""


@pytest.mark.parametrize(
    ("runs", "state", "said"),
    [
        (
            0,
            "interrupted",
            ("No configuration has a finished run", "No run has been", "with: study resume fake"),
        ),
        (3, "running", ("The answer so far", "Open: ")),
    ],
)
def test_an_unfinished_study_has_a_report(
    contents: Contents, runs: int, state: str, said: tuple[str, ...]
) -> None:
    trials = contents.rows[:runs]
    plan_state = OneAtATime(WIDE, images=IMAGES).state(trials)
    found = replace(contents, plan_state=plan_state, rows=trials, state=state)
    page = files(replace(found, resume="study resume fake"))[PAGE].decode()
    Reader(page)
    assert all(words_ in page for words_ in said)


def test_a_search_has_a_report_whose_options_are_ranked() -> None:
    found = told(Search(space(), "random", 5, seed=1, images=IMAGES))
    figure = stages.stage_figure(found.plan_state.stages[0], 3, 1)
    assert figure.table is not None
    means = [float(line[4].split()[0]) for line in figure.table.lines]
    assert len(means) == 5
    assert means == sorted(means, reverse=True)
    page = files(found)[PAGE].decode()
    Reader(page)
    assert "The best of 5 configurations" in page


def test_what_was_measured_on_the_test_set_is_shown_and_its_openings_counted(
    contents: Contents,
) -> None:
    one = FinalModel(
        model="seed 1",
        file="seed-1.keras",
        members=("a", "b"),
        configurations=({"width": 2}, {"width": 3}),
        opening="abc",
        opened="2026-01-01",
        images=10000,
        trained_on=54000,
        measure="accuracy",
        value=0.991,
        low=0.989,
        high=0.993,
        validation=0.9876,
    )
    finals = (one, replace(one, model="average of 3"), replace(one, model="x", opened="2027"))
    page = text_of(replace(contents, finals=finals))
    assert "The test set was used 2 times" in page
    assert "average of 3" in page
    assert "98.90 % to 99.30 %" in page
    assert "width=2; width=3" in page
    assert "98.76 %" in page


def test_a_page_says_that_the_score_of_a_best_epoch_is_biased(contents: Contents) -> None:
    assert "The score of a run is the mean of its last 3 epochs" in text_of(contents)
    kept = replace(contents.settings.space, fixed={"restore_best_weights": True})
    page = text_of(replace(contents, settings=replace(contents.settings, space=kept)))
    assert "its best epoch, which is biased upwards; of any other run the mean" in page


def test_an_answer_on_fresh_repeats_has_their_interval(contents: Contents) -> None:
    assert "biased upwards; the test set" in text_of(contents)
    fresh = Confirmation(Score(3, 0.9, 0.01, (0.88, 0.92)))
    page = text_of(replace(contents, plan_state=replace(contents.plan_state, confirmation=fresh)))
    assert f"{INTERVAL}: 88.00 % to 92.00 %, from 3 fresh repeats." in page
    assert "biased upwards" not in page


def test_a_report_of_ten_thousand_runs_stays_small_and_says_what_it_leaves_out() -> None:
    wide = space(hyperparameters={"rate": {"low": 0.0, "high": 1.0}})
    many = 3334
    found = [
        StoredTrial(
            number=3 * number + repeat,
            trial_id=3 * number + repeat,
            state="complete",
            stage=SEARCH,
            option=number,
            configuration=(("rate", number / many),),
            repeat=repeat,
            reference=(),
            value=0.9 + 0.09 * number / many + 0.001 * repeat,
            reported=tuple(0.9 - 0.5 / epoch + 0.09 * number / many for epoch in range(1, 13)),
            attributes={"seconds": 3.0 + repeat, "parameters": 1000.0},
        )
        for number in range(many)
        for repeat in range(3)
    ]
    plan = Search(wide, "random", many, 1, 3, IMAGES)
    settings = replace(mirror_fakes.settings(epochs=12), space=wide)
    made = files(Contents("many", settings, plan.state(found), "complete", tuple(found)))
    assert sum(map(len, made.values())) < 20 * 2**20
    page = made[PAGE].decode()
    assert len(page) < 2**20
    assert f"{MOST_OPTIONS} of {many}; all of them are in stages.csv" in page
    assert made["runs.csv"].count(b"\n") == 1 + 3 * many
    assert made["stages.csv"].count(b"\n") == 1 + many


# Numbers, and doing it again -------------------------------------------------------------------


def test_the_csv_files_have_a_line_for_every_option_and_every_run(
    contents: Contents, made: dict[str, bytes]
) -> None:
    runs = list(csv.DictReader(io.StringIO(made["runs.csv"].decode())))
    assert [int(run["trial"]) for run in runs] == [row.number for row in contents.rows]
    assert [run["value"] for run in runs].count("") == 1
    options = list(csv.DictReader(io.StringIO(made["stages.csv"].decode())))
    assert len(options) == sum(len(stage.options) for stage in contents.plan_state.stages)
    best = next(option for option in options if "selected" in option["verdict"])
    assert float(best["low"]) < float(best["mean"]) < float(best["high"])


def test_names_are_no_formulas_in_a_spreadsheet() -> None:
    text = "=HYPERLINK(1)"
    odd = space(hyperparameters={"kind": {"options": [text, "\x1b[31m"], "start": text}})
    found = told(OneAtATime(odd, images=IMAGES), train=_flat)
    for made in (write.stages_csv(found.plan_state), write.runs_csv(found.rows, ACCURACY)):
        options = {line["option"] for line in csv.DictReader(io.StringIO(made))}
        assert options == {f"'{text}", r"\x1b[31m"}


@pytest.mark.parametrize("name", ["smoke", "mnist", 'a \U0001f600 "b"'])
def test_the_recorded_space_is_the_same_space_again(contents: Contents, name: str) -> None:
    held = load(name) if name in {"smoke", "mnist"} else replace(WIDE, name=name)
    recorded = replace(contents, settings=replace(contents.settings, space=held)).space
    assert SearchSpace.from_dict(tomllib.loads(recorded)) == held


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"data": ("my data.npz", "environment")}, "--data 'my data.npz' --epochs 4 --repeats 2"),
        ({"device": ("cpu", "found")}, "--device cpu --epochs 4 --repeats 2"),
        (
            {"device": ("gpu", "found"), "training": ("grouped", "default")},
            "--device gpu --epochs 4 --repeats 2 --training grouped",
        ),
    ],
)
def test_the_command_has_what_was_given_and_what_a_machine_decides(
    contents: Contents, chosen: dict[str, tuple[str, str]], said: str
) -> None:
    settings = mirror_fakes.settings(epochs=4)
    values = {key: Setting(*value) for key, value in chosen.items()}
    found = replace(
        contents,
        name="a name",
        settings=replace(settings, chosen={**settings.chosen, **values}),
    )
    given = shlex.split(found.command)
    assert given[:5] == ["study", "run", "smoke", "--name", "a name"]
    assert sorted(given[5:]) == sorted(shlex.split(said))


# Writing ---------------------------------------------------------------------------------------


def test_the_text_of_a_custom_model_stands_in_the_page_escaped(contents: Contents) -> None:
    network = ModelSource("/home/me/net.py", "build", "if a < b: '<script>'")
    facts = NetworkFacts(34_826, "the class Net")
    settings = replace(contents.settings, model=network, network=facts)
    page = text_of(replace(contents, settings=settings))
    assert "34,826 parameters at the start" in page
    assert "trained by Keras&#39; own steps" in page
    assert "The custom model, net.py:build as recorded" in page
    assert "if a &lt; b: &#39;&lt;script&gt;" in page
    assert "as recorded" in text_of(contents)
    assert "net.py" not in text_of(contents)


@pytest.fixture
def stored(tmp_path: Path) -> mirror_fakes.Made:
    """A complete study in a database."""
    found = mirror_fakes.make(tmp_path)
    mirror_fakes.complete(found)
    return found


def study(*words: str):
    return CliRunner().invoke(app, words)


def test_the_command_writes_a_folder_and_says_where_in_one_line(stored, tmp_path: Path) -> None:
    result = study("report", "--storage", stored.url)
    page = tmp_path / "digits-report" / PAGE
    assert (result.exit_code, result.stdout) == (0, f"Report: {page}\n")
    held = {path.name for path in page.parent.iterdir()}
    assert {"report.html", "stages.csv", "runs.csv", "cost.png", "stage-1-filters.png"} <= held
    assert (page.parent / "cost.png").read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob(".report-*"))


def test_a_report_is_written_again_over_the_old_one_and_leaves_other_files_alone(
    stored, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    (folder / PAGE).write_text("old")
    report(Database.at(stored.url), "digits", folder)
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / PAGE).read_text() != "old"
    assert not list(folder.glob(".report-*"))


@pytest.mark.parametrize("place", ["file", "file/below", "nowhere/report"])
def test_a_folder_that_cannot_be_written_is_one_line(stored, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    result = study("report", "--storage", stored.url, "--output", str(tmp_path / place))
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert "--output" in result.stderr
    assert (tmp_path / "file").read_text() == ""


def without_rights(*words: str) -> subprocess.CompletedProcess[str]:
    """A command under a user whom permissions bind; root would write everywhere."""
    bound = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    prefix = bound if os.geteuid() == 0 else []
    command = [*prefix, sys.executable, "-m", "study", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="no setpriv")
def test_a_study_that_cannot_be_written_is_reported_into_another_folder(
    stored, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    for path in tmp_path.glob("study.db*"):
        path.chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        given = ("report", "--storage", stored.url)
        refused, made = (
            without_rights(*given),
            without_rights(*given, "--output", f"{tmp_path}/mine"),
        )
    finally:
        tmp_path.chmod(0o755)
    assert (made.returncode, (tmp_path / "mine" / PAGE).exists()) == (0, True)
    assert refused.returncode == 2
    assert "no permission to write" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_a_report_that_cannot_be_written_whole_leaves_nothing(stored, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "runs.csv").mkdir(parents=True)  # a folder where a file is to go
    result = study("report", "--storage", stored.url, "--output", str(folder))
    assert result.exit_code == 2
    assert [path.name for path in folder.iterdir()] == ["runs.csv"]


def test_a_malformed_record_of_final_models_is_one_line(stored) -> None:
    stored.study.set_user_attr(FINALS, [{"model": "seed 1", "accuracy": 0.5}, "nonsense"])
    with pytest.raises(StorageError, match="'digits': is malformed in the database"):
        read(Database.at(stored.url), None)


def test_the_report_loads_neither_tensorflow_nor_mlflow(stored, tmp_path: Path) -> None:
    code = (
        "import sys; from study.report.write import report; "
        "from study.storage.location import Database; "
        f"report(Database.at({stored.url!r}), None, {str(tmp_path / 'out')!r}); "
        "print(*sys.modules.keys() & {'tensorflow', 'keras', 'mlflow', 'tkinter'}, "
        "'matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


# --- of a race -----------------------------------------------------------------------------------


RANGES = {
    "width": {"options": [1, 2, 3], "start": 1},
    "rate": {"low": 0.001, "high": 0.1, "log": True},
    "kind": {"options": ["a", "b"], "start": "a"},
}


def raced(**hyperparameters: Any) -> Contents:
    """A race of fake curves, in which the wider one is the better one."""
    given = space(repeats=3, hyperparameters=hyperparameters or RANGES)
    plan = Race(given, images=IMAGES, budget=Budget(64))
    found = told(plan)
    return replace(found, effects=effects(plan, found.rows))


@pytest.fixture(scope="module")
def race() -> Contents:
    return raced()


def test_a_race_tells_the_effect_of_each_hyperparameter(race: Contents) -> None:
    assert race.effects is not None
    width, *_ = race.effects.main
    assert width.name == "width"
    assert [level.value for level in width.levels] == [1, 2, 3]
    accuracies = [level.accuracy for level in width.levels]
    assert accuracies == sorted(accuracies)
    assert all(level.low < level.accuracy < level.high for level in width.levels)
    assert len(race.effects.pairs) == 3
    assert all(0 <= pair.shown <= pair.possible for pair in race.effects.pairs)


def test_a_pair_that_interacts_is_told_from_those_that_do_not() -> None:
    names = "abcd"
    held = space_of(repeats=3, **{name: ([0, 1, 2], 0) for name in names})
    plan = Race(held, images=4000, epochs=1, budget=Budget(200))
    chance = random.Random(1)
    found = []
    for number in range(81):
        one = tuple((name, number // 3**place % 3) for place, name in enumerate(names))
        a, b, c, _ = (int(value) for _, value in one)
        error = math.exp(-3 + 0.1 * c + 0.3 * (a - 1) * (b - 1) + 0.02 * chance.gauss(0, 1))
        slot = RunSpec(RACE, number, one, 0, None)
        found.append(row_of(slot, number, 1 - error))
    known = effects(plan, found)
    assert known is not None
    strongest, second = known.pairs[:2]
    assert strongest.names == ("a", "b")
    assert strongest.shown > 3 * second.shown
    assert known.main[0].name == "c"


def test_the_page_of_a_race_has_its_figures_its_intervals_and_why_it_ended(race: Contents) -> None:
    made = files(race)
    page = made[PAGE].decode()
    for heading in ("The leading configurations", "The effect of each", "Interactions of pairs"):
        assert heading in page
    assert race.plan_state.race is not None
    for sentence in words.race(race.plan_state.race, ACCURACY):
        assert sentence in page
    assert "paused" in page
    assert "stopped early." not in page
    Reader(page)
    assert {"contenders.png", "effects.png", "pairs.png", "curves-1-race.png"} <= set(made)


def test_a_paused_run_is_drawn_and_counted_as_paused(race: Contents) -> None:
    (panel,) = curves.panels(race.plan_state, race.rows)
    ends = {line.number: line.end for line in panel.lines}
    assert {ends[row.number] for row in race.rows if len(row.reported) < 4} == {"paused"}
    assert not any(line.reused for line in panel.lines)
    assert "pruned" not in next(time_spent(race))
    assert "pruned" not in write.runs_csv(race.rows, ACCURACY)


def test_a_race_of_a_single_hyperparameter_has_no_pairs() -> None:
    single = raced(width={"options": [1, 2, 3], "start": 1})
    assert single.effects is not None
    assert single.effects.pairs == ()
    assert "pairs.png" not in files(single)
