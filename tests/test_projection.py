"""What MLflow should show follows from rows alone, and what was sent never has to be unsaid."""

from dataclasses import replace

import mirror_fakes
import pytest

from study.mirror import parent_runs as parents
from study.mirror import projection
from study.mirror.projection import Subject
from study.mirror.tracking import Found
from study.mirror.transfer import Known, Report, Transfer
from study.space.model_source import ModelSource, NetworkFacts
from study.storage.trials import StoredTrials


@pytest.fixture
def made(tmp_path):
    return mirror_fakes.make(tmp_path, repeats=3)


def subject(made, *, live=True):
    return Subject("digits", "a-uuid", made.settings, live=live)


def rows(made):
    return StoredTrials()(made.study)


def points(made, number=0):
    return projection.trial_content(subject(made), rows(made)[number]).points


def test_the_points_of_a_run_only_grow_at_their_end(made):
    number = made.add(made.start(), 0, (0.5,), "running")
    lengths, before = [], []
    for value in (0.6, 0.7):
        made.report(number, value)
        now = points(made)
        assert now[: len(before)] == before
        lengths.append(len(now))
        before = now
    made.tell(number, "complete", 0.7)
    assert points(made)[: len(before)] == before
    assert lengths == [10, 15]


def test_an_epoch_that_is_stored_by_half_is_not_shown(made):
    number = made.add(made.start(), 0, (0.5, 0.6), "running")
    trial = made.running(number)
    curve = trial.user_attrs["curve"]
    trial.set_user_attr("curve", curve | {"loss": curve["loss"][:1]})
    assert len(points(made)) == 5


def test_a_mean_that_was_shown_does_not_change_when_other_runs_finish(made):
    made.add(made.start(), 0, (0.90,))
    one = parents.configuration_content(subject(made), rows(made)).points
    made.add(made.start(), 1, (0.94,))
    two = parents.configuration_content(subject(made), rows(made)).points
    assert two[: len(one)] == one
    assert [(point.key, point.step) for point in two] == [
        ("mean_val_accuracy", 1),
        ("standard_error", 1),
        ("mean_val_accuracy", 2),
        ("standard_error", 2),
    ]
    assert two[2].value == pytest.approx(0.92)
    assert two[3].value == pytest.approx(0.02)


def test_a_repeat_that_came_early_waits_for_the_one_before_it(made):
    made.add(made.start(), 1, (0.9,))
    assert parents.configuration_content(subject(made), rows(made)).points == []


def test_a_pruned_run_enters_no_mean_and_eliminates_its_configuration(made):
    made.add(made.start(), 0, (0.9,))
    made.add(made.start(), 1, (0.2,), "pruned")
    assert len(parents.configuration_content(subject(made), rows(made)).points) == 2
    assert parents.configuration(subject(made), rows(made)).status == "KILLED"


def test_more_repeats_open_a_configuration_again(made):
    for repeat in range(3):
        made.add(made.start(), repeat, (0.9,))
    done = parents.configuration(subject(made), rows(made))
    more = replace(subject(made), settings=made.settings.with_repeats(5))
    again = parents.configuration(more, rows(made))
    assert (done.status, again.status) == ("FINISHED", "RUNNING")
    assert done.mark != again.mark


def test_without_a_driver_nothing_is_running(made):
    made.add(made.start(), 0, (0.5,), "running")
    row = rows(made)[0]
    assert projection.trial(subject(made), row).status == "RUNNING"
    assert projection.trial(subject(made, live=False), row).status == "KILLED"
    plan_state = made.plan.state(rows(made))
    assert parents.study(subject(made, live=False), rows(made), plan_state).status == "KILLED"


def test_a_complete_study_shows_its_answer(made):
    mirror_fakes.complete(made)
    plan_state = made.plan.state(rows(made))
    content = parents.study_content(subject(made, live=False), rows(made), plan_state)
    assert content.tags["answer.filters"] == str(dict(plan_state.incumbent)["filters"])
    assert [point.key for point in content.points] == ["mean_val_accuracy", "standard_error"]
    assert content.points[0].value == plan_state.score.mean
    assert content.params["score"] == "mean of last 3"


def test_a_reason_longer_than_an_old_server_takes_is_cut(made):
    made.add(made.start(), 0, (), "failed", attributes={"failure": "x" * 1000})
    tags = projection.trial_content(subject(made), rows(made)[0]).tags
    assert tags["failure"] == "x" * 250


class Uploads:
    """A server that remembers what files it was sent, and takes none while it is `full`."""

    def __init__(self) -> None:
        self.sent: list[dict[str, str]] = []
        self.full = False

    def upload(self, run, folder, name):
        if self.full:
            raise OSError("no space left")
        self.sent.append({f"{name}/{path.name}": path.read_text() for path in folder.iterdir()})

    def tag(self, run_id, name, value):
        assert (run_id, name) == ("1", "model")


def test_the_text_of_an_own_network_is_sent_once_and_again_where_it_has_changed(made):
    server, report = Uploads(), Report()
    run = Found("1", projection.STUDY, "RUNNING", None, None, None, "")
    known = Known("0", {projection.STUDY: run})

    def look(text):
        own = ModelSource("/home/me/net.py", "build", text)
        settings = replace(made.settings, model=own)
        transfer = Transfer(replace(subject(made), settings=settings), known, server, report)
        transfer.bring_network()
        return transfer.models_failed

    server.full = True
    assert look("one")
    assert report.problems == ["the text of net.py:build is not sent: no space left"]
    server.full = False
    assert not any(look(text) for text in ("one", "one", "two"))
    assert server.sent == [{"network/net.py": "one"}, {"network/net.py": "two"}]


def test_what_trains_an_own_network_is_among_the_tags(made):
    own = ModelSource("/home/me/net.py", "build", "")
    facts = NetworkFacts(7, "the class Net")
    tags = projection.origin(replace(made.settings, model=own, network=facts))
    assert (tags["network"], tags["network_parameters"]) == ("net.py:build", "7")
    assert tags["network_unknown_to_fast"] == "the class Net"
    assert not any(name.startswith("network") for name in projection.origin(made.settings))


def test_the_metric_that_a_study_compares_by_is_the_one_that_is_summed_up(made):
    space = replace(made.settings.space, metric_name="val_loss", direction="minimize")
    compared = replace(subject(made), settings=replace(made.settings, space=space))
    made.add(made.start(), 0, (0.5, 0.9, 0.7))
    (row,) = rows(made)
    shown = projection.trial_content(compared, row)
    values = {point.key: point.value for point in shown.points}
    assert values["best_val_loss"] == min(row.curve["val_loss"])
    assert values["best_epoch"] == 2
    assert "best_val_accuracy" not in values
    parent = parents.configuration_content(compared, [row])
    assert [point.key for point in parent.points] == ["mean_val_loss"]  # of one repeat: no error
    study = parents.study_content(compared, [row], made.plan.state([row]))
    assert study.params["metric"] == "val_loss"
    assert study.params["direction"] == "minimize"
