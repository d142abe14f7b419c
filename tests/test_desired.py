"""What a tracker should show follows from stored trials alone; nothing sent has to be unsaid."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import mirror_fakes
import pytest
from mirror_fakes import Made

from study.mirror.desired import Content, DesiredRun, Snapshot, desired_runs, digest_of, origin
from study.plan.plan import Confirmation
from study.plan.statistics import Difference, Score
from study.space.model_source import ModelSource, NetworkFacts
from study.storage.trials import StoredTrials


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return mirror_fakes.make(tmp_path, repeats=3)


def runs(made: Made, *, live: bool = True, **settings: Any) -> dict[str, DesiredRun]:
    """The desired runs by key; that of a configuration by "configuration"."""
    trials = StoredTrials()(made.study)
    state, changed = made.plan.state(trials), replace(made.settings, **settings)
    found = desired_runs(Snapshot("digits", changed, trials, state, live=live))
    return {run.key.partition(" ")[0] if run.parent == "study" else run.key: run for run in found}


def content(made: Made, key: str, **settings: Any) -> Content:
    return runs(made, **settings)[key].make_content()


def test_the_points_of_a_run_only_grow_at_their_end(made: Made) -> None:
    number = made.add(made.start(), 0, (0.5,), "running")
    lengths, before = [], []
    for value in (0.6, 0.7):
        made.report(number, value)
        now = list(content(made, "trial 0").points)
        assert now[: len(before)] == before
        lengths.append(len(now))
        before = now
    made.tell(number, "complete", 0.7)
    assert list(content(made, "trial 0").points)[: len(before)] == before
    assert lengths == [10, 15]


def test_an_epoch_that_is_stored_by_half_is_not_shown(made: Made) -> None:
    number = made.add(made.start(), 0, (0.5, 0.6), "running")
    trial = made.running(number)
    curve = trial.user_attrs["curve"]
    trial.set_user_attr("curve", curve | {"loss": curve["loss"][:1]})
    assert len(content(made, "trial 0").points) == 5


def test_nothing_is_shown_before_the_first_epoch(made: Made) -> None:
    made.add(made.start(), 0, (), "running")
    made.add(made.option(filters=8), 0, (), "pruned", attributes={"cancelled": "not wanted"})
    assert runs(made) == {}


def test_a_mean_that_was_shown_does_not_change_when_other_runs_finish(made: Made) -> None:
    made.add(made.start(), 0, (0.90,))
    one = list(content(made, "configuration").points)
    made.add(made.start(), 1, (0.94,))
    two = list(content(made, "configuration").points)
    assert two[: len(one)] == one
    assert [(point.key, point.step) for point in two] == [
        ("mean_val_accuracy", 1),
        ("standard_error", 1),
        ("mean_val_accuracy", 2),
        ("standard_error", 2),
    ]
    assert (two[2].value, two[3].value) == (pytest.approx(0.92), pytest.approx(0.02))


def test_a_repeat_that_came_early_waits_for_the_one_before_it(made: Made) -> None:
    made.add(made.start(), 1, (0.9,))
    assert content(made, "configuration").points == []


@pytest.mark.parametrize(
    ("repeats", "live", "expected"),
    [
        (["complete"] * 3, True, "complete"),
        (["complete", "pruned"], True, "pruned"),
        (["complete", "running"], True, "running"),
        (["complete", "running"], False, "interrupted"),
        (["complete"], True, "running"),
    ],
)
def test_the_state_of_a_configuration_follows_from_its_trials(
    made: Made, repeats: list[str], live: bool, expected: str
) -> None:
    for repeat, state in enumerate(repeats):
        made.add(made.start(), repeat, (0.9,), state)
    assert runs(made, live=live)["configuration"].state == expected


def test_more_repeats_open_a_configuration_again(made: Made) -> None:
    for repeat in range(3):
        made.add(made.start(), repeat, (0.9,))
    done = runs(made)["configuration"]
    more = made.settings.with_repeats(5)
    again = runs(made, chosen=more.chosen)["configuration"]
    assert (done.running, again.running) == (False, True)
    assert done.mark != again.mark


def test_without_a_driver_nothing_is_running(made: Made) -> None:
    made.add(made.start(), 0, (0.5,), "running")
    assert {run.state for run in runs(made).values()} == {"running"}
    assert {run.state for run in runs(made, live=False).values()} == {"interrupted"}


def test_a_run_that_pauses_is_running_and_one_that_stays_paused_says_so(made: Made) -> None:
    number = made.add(made.start(), 0, (0.5,), "running", until=1)
    assert runs(made)["trial 0"].state == "running"
    made.tell(number, "pruned")
    assert runs(made)["trial 0"].state == "pruned"
    made.add(made.option(filters=8), 0, (0.5,), "pruned", attributes={"paused": "the end"})
    assert runs(made)["trial 1"].state == "paused"


def test_a_complete_study_shows_its_answer(made: Made) -> None:
    mirror_fakes.complete(made)
    state = made.plan.state(StoredTrials()(made.study))
    assert state.incumbent is not None
    assert state.score is not None
    shown = content(made, "study")
    assert shown.tags["answer.filters"] == str(dict(state.incumbent)["filters"])
    assert [point.key for point in shown.points] == ["mean_val_accuracy", "standard_error"]
    assert shown.points[0].value == state.score.mean
    assert shown.params["score"] == "mean of last 3"


@pytest.mark.parametrize("gain", [Difference(3, 0.01, 0.004), None])
def test_the_gain_on_fresh_repeats_is_a_metric_of_the_study(
    made: Made, gain: Difference | None
) -> None:
    mirror_fakes.complete(made)
    trials = StoredTrials()(made.study)
    confirmed = Confirmation(Score(3, 0.9, 0.01), difference=gain)
    state = replace(made.plan.state(trials), confirmation=confirmed)
    *_, shown = desired_runs(Snapshot("digits", made.settings, trials, state, live=False))
    points = {point.key: (point.value, point.step) for point in shown.make_content().points}
    assert points.get("gain") == (gain and (0.01, 3))
    assert points.get("gain_standard_error") == (gain and (0.004, 3))


def test_the_digest_differs_where_something_is_to_be_sent(made: Made) -> None:
    made.add(made.start(), 0, (0.9,))
    first = digest_of([*runs(made, live=False).values()])
    assert digest_of([*runs(made, live=False).values()]) == first
    own = ModelSource("/home/me/net.py", "build", "text")
    assert digest_of([*runs(made, live=False, model=own).values()]) != first
    made.add(made.start(), 1, (0.9,))
    assert digest_of([*runs(made, live=False).values()]) != first


def test_a_custom_model_is_among_the_tags_and_its_text_an_artifact(made: Made) -> None:
    made.add(made.start(), 0, (0.9,))
    own = ModelSource("/home/me/net.py", "build", "the text")
    tags = origin(replace(made.settings, model=own, network=NetworkFacts(7)))
    assert (tags["network"], tags["network_parameters"]) == ("net.py:build", "7")
    assert not any(name.startswith("network") for name in origin(made.settings))
    artifact = runs(made, model=own)["study"].artifact
    assert artifact is not None
    assert (artifact.name, artifact.filename) == ("network", "net.py")
    assert (artifact.read(), artifact.mark) == (b"the text", own.fingerprint)


def test_the_metric_that_a_study_compares_by_is_the_one_that_is_summed_up(made: Made) -> None:
    space = replace(made.settings.space, metric_name="val_loss", direction="minimize")
    made.add(made.start(), 0, (0.5, 0.9, 0.7))
    (trial,) = StoredTrials()(made.study)
    shown = content(made, "trial 0", space=space)
    values = {point.key: point.value for point in shown.points}
    assert values["best_val_loss"] == min(trial.curve["val_loss"])
    assert values["best_epoch"] == 2
    assert "best_val_accuracy" not in values
    parent = content(made, "configuration", space=space)
    assert [point.key for point in parent.points] == ["mean_val_loss"]  # of one repeat: no error
    params = content(made, "study", space=space).params
    assert (params["metric"], params["direction"]) == ("val_loss", "minimize")
