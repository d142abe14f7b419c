"""What the dashboard shows beside the trials is kept up to date and disturbs nobody."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import mirror_fakes
import pytest
from fakes import IMAGES, drive, space
from optuna.storages import InMemoryStorage
from optuna_dashboard import get_note, save_note

from study.dashboard import markdown, note, pairs
from study.dashboard.follow import Follower
from study.dashboard.writer import Writer
from study.plan.plan import PlanState
from study.plan.results import Difference
from study.plan.sweep import OneAtATime
from study.storage.location import Database
from study.storage.progress import standing_of


@pytest.fixture(scope="module")
def standing() -> PlanState:
    return drive(InMemoryStorage())


# The note --------------------------------------------------------------------------------------


def test_each_part_of_a_note_is_replaced_where_it_stands() -> None:
    first = note.with_part(
        "mine", note.STANDING, "## The study so far\n\n1\n*Written by the study x"
    )
    both = note.with_part(first, note.MLFLOW, note.link("at"))
    again = note.with_part(both, note.STANDING, "## The study so far\n\n2\n*Written by the study y")
    assert again == (
        "mine\n\n## The study so far\n\n2\n*Written by the study y\n\n"
        "MLflow shows every run: [at](at)"
    )


def test_a_part_that_was_torn_is_written_anew() -> None:
    torn = "## The study so far\nhalf of it"
    whole = "## The study so far\n\n2\n*Written by the study y"
    healed = note.with_part(note.with_part(torn, note.STANDING, whole), note.STANDING, whole)
    assert healed == whole


def test_the_note_has_the_answer_and_a_table_a_stage(standing: PlanState) -> None:
    text = markdown.standing(standing, 2)
    assert text.startswith(note.STANDING.first)
    assert text.splitlines()[-1].startswith(note.STANDING.last)
    assert "Use width=2" in text
    assert text.count("| --- | --- | --- | --- | --- |") == len(standing.stages)
    assert "| 2/2 |" in text


def test_the_note_says_so_where_runs_are_judged_by_their_best_epoch(standing: PlanState) -> None:
    assert standing.incumbent is not None
    kept = replace(standing, incumbent=(*standing.incumbent, ("restore_best_weights", True)))
    assert "by its best epoch" in markdown.standing(kept, 2)
    assert "by its best epoch" not in markdown.standing(standing, 2)


def test_a_name_means_nothing_in_markdown_or_html() -> None:
    odd = space(hyperparameters={"kind": {"options": ["a|<b>*", "c"], "start": "c"}})
    text = markdown.standing(drive(InMemoryStorage(), plan=OneAtATime(odd, images=IMAGES)), 2)
    assert "<b>" not in text
    assert "| a\\|&lt;b>\\* |" in text


def test_every_run_of_a_decided_stage_has_one_place(standing: PlanState) -> None:
    places = list(markdown.places(standing, 2))
    numbers = [row.number for row, _ in places]
    assert sorted(numbers) == sorted(
        {row.number for s in standing.stages for o in s.options for row in o.rows}
    )
    text = {row.number: text for row, text in places}[0]
    assert text.startswith("**width: 1**, repeat 1 of 2, in stage 1.\n\nPlace 2 of 2: mean ")


# The figure ------------------------------------------------------------------------------------


def test_differences_are_taken_in_pairs_against_what_the_sweep_had(standing: PlanState) -> None:
    found = pairs.pairs(standing, IMAGES)
    (wide, *_) = found
    one, two = standing.stages[0].options
    assert wide.label == "width 2"
    assert wide.differences == tuple(b - a for a, b in zip(one.values, two.values, strict=True))
    assert {pair.label for pair in found} >= {"depth 1", "depth 3"}


def test_the_figure_is_what_plotly_reads_and_small(standing: PlanState) -> None:
    text = pairs.Figure(pairs.pairs(standing, IMAGES), search=False).to_json()
    figure = json.loads(text)
    assert len(text) < 2045
    assert [trace["name"] for trace in figure["data"]] == ["a repeat", "mean ± standard error"]
    assert figure["data"][1]["x"][0] == "width 2"


def test_options_that_differ_only_in_the_end_do_not_share_a_place() -> None:
    mean = Difference(1, 0.01, 0.001)
    found = [pairs.Pairs(f"{'x' * 60}{end}", (0.01,), mean) for end in "ab"]
    figure = json.loads(pairs.Figure(found, search=True).to_json())
    assert len(set(figure["data"][1]["x"])) == 2
    assert max(map(len, figure["data"][1]["x"])) <= 40


# Writing ---------------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path: Path) -> mirror_fakes.Made:
    found = mirror_fakes.make(tmp_path)
    mirror_fakes.complete(found)
    return found


def write(stored: mirror_fakes.Made, enough: threading.Event | None = None) -> None:
    writer = Writer(Database.at(stored.url).study("digits"), 2, stored.settings.images)
    writer.write(standing_of(stored.study, stored.settings), enough or threading.Event())
    writer.close()


def notes(stored: mirror_fakes.Made) -> list[str]:
    study = mirror_fakes.again(stored).study
    return [get_note(stored.running(trial.number)) for trial in study.get_trials(deepcopy=False)]


def test_the_study_the_figure_and_every_trial_are_written(stored) -> None:
    write(stored)
    attributes = stored.study._storage.get_study_system_attrs(stored.study._study_id)
    assert "Use " in get_note(mirror_fakes.again(stored).study)
    assert f"dashboard:plot_data:{pairs.FIGURE}:0" in attributes
    assert all(text.startswith("**") for text in notes(stored))


def test_a_trial_s_note_is_written_once_and_a_person_s_stays(stored) -> None:
    save_note(stored.running(1), "mine")
    write(stored)
    before = stored.study._storage.get_study_system_attrs(stored.study._study_id)
    write(stored)
    assert stored.study._storage.get_study_system_attrs(stored.study._study_id) == before
    assert notes(stored)[1] == "mine"


def test_a_note_follows_its_stage_unless_a_person_has_added_to_it(stored) -> None:
    write(stored)
    plain, added = notes(stored)[:2]
    save_note(stored.running(0), plain.replace("Place", "Place 99, once"))
    save_note(stored.running(1), f"{added}\n\nA thought of mine.")
    write(stored)
    assert notes(stored)[:2] == [plain, f"{added}\n\nA thought of mine."]


def test_the_mirror_s_line_and_the_standing_share_the_note(stored) -> None:
    write(stored)
    stored.study.set_user_attr(note.LINK, {"address": "http://here"})
    write(stored)  # heals what two writers at once may have lost
    note.save(stored.study, [(note.MLFLOW, note.link("http://there"))])
    text = get_note(mirror_fakes.again(stored).study)
    assert (text.count(note.STANDING.first), text.count("http://there")) == (1, 2)
    assert "http://here" not in text


def test_trials_notes_are_left_off_when_time_is_up(stored) -> None:
    enough = threading.Event()
    enough.set()
    write(stored, enough)
    assert set(notes(stored)) == {""}


# Following -------------------------------------------------------------------------------------


class Written:
    """Remembers what it was to write, and fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.standings: list[PlanState] = []
        self.failures = failures
        self.tried = threading.Event()
        self.closed = False

    def write(self, standing: PlanState, enough: threading.Event) -> None:
        self.tried.set()
        if self.failures:
            self.failures -= 1
            raise OSError("database is locked")
        self.standings.append(standing)

    def close(self) -> None:
        self.closed = True


def test_the_last_standing_is_written_at_the_end(standing: PlanState) -> None:
    writer, said = Written(), []
    follower = Follower(writer, said.append, pause=60)
    follower.start()
    follower.see(standing.__class__(**{**_fields(standing), "runs": 1}), {}, None)
    assert writer.tried.wait(10)
    follower.see(standing, {}, None)
    follower.close(10)
    assert [held.runs for held in writer.standings] == [1, standing.runs]
    assert (writer.closed, said) == (True, [])


def _fields(standing: PlanState) -> dict:
    return {name: getattr(standing, name) for name in PlanState.__dataclass_fields__}


def test_an_epoch_is_no_news(standing: PlanState) -> None:
    writer = Written()
    follower = Follower(writer, print, pause=0.001)
    follower.start()
    for _ in range(5):
        follower.see(standing, {}, None)
    follower.close(10)
    assert len(writer.standings) == 1


def test_whatever_goes_wrong_is_one_line_and_tried_again(standing: PlanState) -> None:
    writer, said = Written(failures=1), []
    follower = Follower(writer, said.append, pause=0.001)
    follower.start()
    follower.see(standing, {}, None)
    assert writer.tried.wait(10)
    follower.close(10)
    assert said == [
        "Dashboard: its notes cannot be written (database is locked); the study goes on"
    ]
    assert writer.standings == [standing]


def test_a_writing_that_hangs_does_not_keep_the_program_from_ending(standing: PlanState) -> None:
    class Hanging(Written):
        def write(self, standing: PlanState, enough: threading.Event) -> None:
            self.tried.set()
            enough.wait()

    writer = Hanging()
    follower = Follower(writer, print)
    follower.start()
    follower.see(standing, {}, None)
    assert writer.tried.wait(10)
    follower.close(0.01)


def test_without_a_standing_nothing_is_opened() -> None:
    writer = Written()
    follower = Follower(writer, print)
    follower.start()
    follower.close(10)
    assert not writer.tried.is_set()
