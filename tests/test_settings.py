"""A setting comes from the command line, else the environment, else the file, else the default."""

import json
from dataclasses import replace
from typing import Any

import pytest

from study.data import dataset as data
from study.errors import SettingsError
from study.running.prepare import facts
from study.space.search_space import SearchSpace
from study.space.settings import FORMAT, Setting, Settings, resolve


def space(**changes: Any) -> SearchSpace:
    table = {
        "name": "small",
        "epochs": 3,
        "batch_size": 10,
        "repeats": 2,
        "hyperparameters": {"filters": {"options": [4, 8], "start": 4}},
    }
    return SearchSpace.from_dict(table | changes)


def settled(given: dict[str, Setting] | None = None, **changes: Any) -> Settings:
    return resolve(space(**changes), "small.toml", given or {})


def typed(value: Any) -> Setting:
    return Setting(value, "command line")


def test_what_was_given_wins_over_the_file() -> None:
    settings = settled({"epochs": typed(5), "seed": Setting(7, "environment")}, seed=3)
    assert settings.chosen["epochs"] == Setting(5, "command line")
    assert settings.chosen["seed"] == Setting(7, "environment")


def test_the_file_wins_over_the_default() -> None:
    settings = settled(seed=3, data="mnist", pruner="median")
    assert settings.chosen["seed"] == Setting(3, "file")
    assert settings.chosen["data"] == Setting("mnist", "file")
    assert settings.chosen["pruner"] == Setting("median", "file")
    assert settings.chosen["epochs"] == Setting(3, "file")


def test_what_nobody_says_is_the_default() -> None:
    settings = settled()
    assert settings.chosen["data"] == Setting("digits", "default")
    assert settings.chosen["sampler"] == Setting("sweep", "default")
    assert settings.chosen["threads"].source == "default"


def test_a_setting_that_nobody_gave_is_filled_in_and_another_is_left() -> None:
    assert settled().with_default("pruner", "sweep").chosen["pruner"] == Setting("sweep", "default")
    given = settled({"pruner": typed("median")})
    assert given.with_default("pruner", "sweep") == given


def test_what_a_file_alone_decides_is_no_setting() -> None:
    assert not {"passes", "score", "tie", "fixed", "name"} & set(settled(passes=2).chosen)
    assert {"batch_size", "repeats", "seed"} <= set(settled().chosen)


@pytest.mark.parametrize(
    ("filed", "given", "kind"),
    [
        ({}, {}, "folds"),
        ({}, {"data": typed("mnist")}, "holdout"),
        ({"validation": {"holdout": 0.2}}, {}, "holdout"),
        ({"validation": {"folds": 4}}, {"data": typed("images.npz")}, "folds"),
        ({"data": "mnist", "validation": {"holdout": 0.1}}, {"data": typed("digits")}, "folds"),
    ],
)
def test_digits_are_validated_by_folds_unless_their_space_says_otherwise(
    filed: dict[str, Any], given: dict[str, Setting], kind: str
) -> None:
    assert settled(given, **filed).validation.kind == kind


def test_more_repeats_are_taken_and_fewer_are_refused() -> None:
    settings = settled()
    assert settings.with_repeats(4).repeats == 4
    assert settings.with_repeats(2) == settings
    with pytest.raises(SettingsError, match=r"--repeats 1: the study has 2"):
        settings.with_repeats(1)


def test_a_path_is_recorded_from_the_root_and_a_name_as_it_is() -> None:
    assert settled({"data": typed("a.npz")}).located()["data"].startswith("/")
    assert settled().located()["data"] == "digits"


def test_settings_survive_the_database() -> None:
    dataset = data.load("digits")
    settings = settled(fixed={"k1": 3}).with_data(
        facts(dataset, [dataset.labels[:479]]), {"python": "3"}
    )
    stored = json.loads(json.dumps(settings.to_dict()))
    assert stored["format"] == FORMAT
    assert Settings.from_dict(stored) == settings


def test_what_may_change_later_makes_no_other_study() -> None:
    settings = settled()
    assert settings.differences(settled()) == []
    assert settings.differences(settled({"repeats": typed(9)})) == []
    assert settings.differences(settled({"budget": typed(9)})) == []
    assert settings.differences(settled(fixed={"k1": 3}, passes=2)) == []
    larger = settled(hyperparameters={"filters": {"options": [4, 9], "start": 4}})
    assert settings.differences(larger) == []


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (settled({"epochs": typed(5)}), "epochs (3, not 5)"),
        (settled({"data": typed("mnist")}), "data (digits, not mnist)"),
        (settled(tie="cheapest"), "tie (best, not cheapest)"),
        (settled({"sampler": typed("grid")}), "sampler (sweep, not grid)"),
    ],
)
def test_each_difference_is_named(other: Settings, said: str) -> None:
    assert said in "; ".join(settled().differences(other))


def test_other_contents_of_the_data_are_a_difference() -> None:
    dataset = data.load("digits")
    known = facts(dataset, [dataset.labels])
    changed = replace(known, fingerprint="other")
    differences = settled().with_data(known, {}).differences(settled().with_data(changed, {}))
    assert differences == ["the contents of the data"]
