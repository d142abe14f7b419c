"""The settings of a study, each with its source.

The command line wins over the environment, the environment over the search-space file, the file
over the default. The result is recorded in the study. Later its space may grow, and the numbers of
`GROWING`; each such change is kept in ``history``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from study.errors import SettingsError
from study.files import absolute
from study.space.metric import BALANCED, Metric
from study.space.model_source import ModelSource, NetworkFacts
from study.space.search_space import NAMED, SearchSpace, Validation
from study.space.training_kinds import KINDS, TrainingKind

FORMAT = 2
"""The version of the stored form; another one is refused."""

Source = Literal["command line", "environment", "file", "default"]

SEED = 1
"""The default seed."""

_DEFAULTS: Mapping[str, Any] = {
    "data": "digits",
    "seed": SEED,
    "sampler": "sweep",
    "threads": 1,
    "training": "fast",
    "device": None,  # the GPU if available
}

_RULES = (
    "fixed",
    "tie",
    "passes",
    "score",
    "size",
    "fit",
    "task",
    "metric_name",
    "direction",
)
"""Keys of a file that are not settings: no option overrides them."""

SPACE = ("hyperparameters", "fixed", "passes")
"""Keys of a file that a study may change later."""

GROWING = ("repeats", "confirm", "configurations", "budget")
"""Settings that a study may raise later; a smaller value is refused, or has no effect."""

FREE = ("tolerance", "confidence")
"""Settings that a study may change later."""


@dataclass(frozen=True)
class Setting:
    """The value of one setting and its source."""

    value: Any
    source: Source


@dataclass(frozen=True)
class DataFacts:
    """The facts of the data that are recorded with a study.

    It is recognised by its contents (``fingerprint``), wherever it is; ``beside`` is its path from
    the folder of the database, which a project that is moved keeps.

    Counts are images. ``validation`` is the size of the smallest validation part of a repeat,
    ``balanced`` the number of images in classes of equal size that would give its balanced accuracy
    the same standard error. ``label_names`` are the names of the classes, in the order of the
    network's outputs.
    """

    fingerprint: str
    input_shape: tuple[int, int, int]
    num_classes: int
    images: int
    test_images: int
    validation: int
    label_names: tuple[int | str, ...] = ()
    balanced: int | None = None
    beside: str | None = None


@dataclass(frozen=True)
class Change:
    """A change of a study after it was made.

    ``when`` is UTC, ISO 8601; ``changes`` say in words what is new. ``trials`` were stored before;
    ``removed`` counts the configurations with complete runs that are no longer in the space.
    ``space`` is the one before.
    """

    when: str
    changes: tuple[str, ...]
    trials: int
    removed: int
    space: SearchSpace


@dataclass(frozen=True)
class Settings:
    """Everything that decides the results of a study, as recorded when it was made or changed."""

    space: SearchSpace
    origin: str
    chosen: Mapping[str, Setting]
    data: DataFacts | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    model: ModelSource | None = None
    network: NetworkFacts | None = None
    history: tuple[Change, ...] = ()

    def __getitem__(self, name: str) -> Any:
        return self.chosen[name].value

    @property
    def repeats(self) -> int:
        return int(self["repeats"])

    @property
    def metric(self) -> Metric:
        """The metric that configurations are compared by."""
        return self.space.metric

    @property
    def training(self) -> TrainingKind:
        """How training steps are computed."""
        return KINDS[self["training"]]

    @property
    def device(self) -> str:
        """The kind of device, "cpu" or "gpu"; fixed for the life of a study."""
        return str(self["device"])

    @property
    def images(self) -> int | None:
        """The number of validation images that an accuracy is a fraction of; else None."""
        if self.data is None or not self.metric.is_accuracy:
            return None
        return self.data.balanced if self.metric.name == BALANCED else self.data.validation

    @property
    def validation(self) -> Validation:
        return Validation(**self["validation"])

    def with_repeats(self, repeats: int) -> Settings:
        """The same settings with more repeats; raises ``SettingsError`` for fewer."""
        if repeats < self.repeats:
            raise SettingsError(
                f"--repeats {repeats}: the study has {self.repeats}; give a larger number"
            )
        if repeats == self.repeats:
            return self
        return self.with_setting("repeats", Setting(repeats, "command line"))

    def with_default(self, name: str, value: Any) -> Settings:
        """The same settings with ``value`` for the setting ``name`` if it has none."""
        if name in self.chosen and self[name] is not None:
            return self
        return self.with_setting(name, Setting(value, "default"))

    def with_setting(self, name: str, setting: Setting) -> Settings:
        """The same settings with another one of this name."""
        return replace(self, chosen={**self.chosen, name: setting})

    def located(self) -> Settings:
        """The same settings with an absolute path of the data: resume may start elsewhere."""
        return self.with_data_at(self["data"])

    def with_data_at(self, place: str) -> Settings:
        """The same settings with the data at another place: its name, or its path."""
        place = place if place in NAMED else str(absolute(place))
        return self.with_setting("data", replace(self.chosen["data"], value=place))

    def with_data(self, data: DataFacts, versions: Mapping[str, str]) -> Settings:
        """The same settings with the facts of the data; versions recorded earlier are kept."""
        return replace(self, data=data, versions=self.versions or versions)

    def to_dict(self) -> dict[str, Any]:
        """The form the database holds (JSON)."""
        return {
            "format": FORMAT,
            "space": self.space.to_dict(),
            "origin": self.origin,
            "chosen": {name: asdict(chosen) for name, chosen in self.chosen.items()},
            "data": asdict(self.data) if self.data else None,
            "versions": dict(self.versions),
            "model": asdict(self.model) if self.model else None,
            "network": asdict(self.network) if self.network else None,
            "history": [
                {**vars(one), "changes": list(one.changes), "space": one.space.to_dict()}
                for one in self.history
            ],
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Settings:
        data: dict[str, Any] | None = stored["data"] and {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in stored["data"].items()
        }
        return cls(
            space=SearchSpace.from_dict(stored["space"]),
            origin=stored["origin"],
            chosen={name: Setting(**chosen) for name, chosen in stored["chosen"].items()},
            data=DataFacts(**data) if data else None,
            versions=stored["versions"],
            model=ModelSource(**stored["model"]) if stored.get("model") else None,
            network=NetworkFacts(**stored["network"]) if stored.get("network") else None,
            history=tuple(
                Change(
                    one["when"],
                    tuple(one["changes"]),
                    one["trials"],
                    one["removed"],
                    SearchSpace.from_dict(one["space"]),
                )
                for one in stored.get("history", ())
            ),
        )

    def differences(self, other: Settings) -> list[str]:
        """Which settings of ``other`` make another study, each as ``name (this, other)``."""
        found = []
        decided = {
            rule.removesuffix("_name"): (getattr(self.space, rule), getattr(other.space, rule))
            for rule in _RULES
            if rule not in SPACE
        }
        for name in {**self.chosen, **other.chosen}:
            recognised = name == "data" and self.data and other.data  # by its contents, below
            moved = name == "batch_size" and None in (self[name], other[name])
            if name not in {*GROWING, *FREE} and not recognised and not moved:
                a, b = (one.chosen.get(name) for one in (self, other))
                decided[name] = a and a.value, b and b.value
        for name, (own, asked) in decided.items():
            if own != asked:
                found.append(f"{name} ({_short(own)}, not {_short(asked)})")
        if self.space.limits != other.space.limits:
            found.append("the limits")
        for name in ("model", "features"):
            own, asked = getattr(self.space, name), getattr(other.space, name)
            if own != asked:
                found.append(f"{name} ({_short(own)}, not {_short(asked)})")
        if self.data and other.data and self.data.fingerprint != other.data.fingerprint:
            found.append("the contents of the data")
        return found


def resolve(space: SearchSpace, origin: str, given: Mapping[str, Setting]) -> Settings:
    """Take each setting from ``given`` (command line, environment), the file, or the default.

    ``origin`` is the shipped name or the path of the space. The pruner is None unless it was given:
    each strategy has its own default.
    """
    own = {"name", "model", "features", "files", "hyperparameters", "validation", "limits", *_RULES}
    fields = {key: value for key, value in vars(space).items() if key not in own}
    default = {name: Setting(_DEFAULTS.get(name), "default") for name in {**_DEFAULTS, **fields}}
    filed = {name: Setting(value, "file") for name, value in fields.items() if value is not None}
    chosen = {**default, **filed, **given}
    validation, source = validation_of(space, chosen["data"].value)
    chosen["validation"] = Setting(_plain(validation), source)
    return Settings(space, origin, dict(sorted(chosen.items())))


def validation_of(space: SearchSpace, data: str) -> tuple[Validation, Source]:
    """How runs on ``data`` are validated, and who says so.

    By default with folds for the small embedded digits, of which a tenth would be too few. What a
    file says for other data does not hold for digits.
    """
    digits = data == "digits"
    foreign = digits and space.data not in (None, "digits")
    if space.validation is not None and not foreign:
        return space.validation, "file"
    return Validation("folds" if digits else "holdout"), "default"


def _plain(validation: Validation) -> dict[str, Any]:
    """As it is recorded: the runs of a study draw with the study's seed."""
    return {name: value for name, value in asdict(validation).items() if name != "seed"}


def _short(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items()) or "none"
    return str(value)
