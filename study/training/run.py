"""What a training run is, and what each of its epochs reports.

Knows neither trial nor database; `study.training.train` trains one.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from study.space.architecture import Cost, Limits
from study.space.metric import ACCURACY, Metric
from study.space.model_source import ModelSource
from study.training import network
from study.training.recipe import Recipe

if TYPE_CHECKING:
    from study.space.search_space import Validation, Value
    from study.space.settings import Settings

_INITIAL, _ORDER, _NOISE = range(3)  # what random numbers are for: keeps their seeds apart


@dataclass(frozen=True)
class FineTuning:
    """Training of a head together with the last ``layers`` layers of its backbone.

    Counted are layers with weights, without batch normalization. It begins with the trained
    ``head`` (a `.keras` file), at the learning ``rate``; None: a tenth of the head's.
    """

    layers: int
    rate: float | None = None
    head: bytes = field(default=b"", repr=False, compare=False)


@dataclass(frozen=True)
class Run:
    """Everything that decides the bits of a run, on one machine and with the same versions.

    ``model`` builds the network; None: `network.build_cnn` does. A step is Keras' own: ``training``
    is "fast" where some layers compute faster (`quick_layers`; never on a GPU), "stock" where none
    do, "grouped" where the run is trained with others as one program. ``device`` is the kind that
    trains it, "cpu" or "gpu". ``until`` is
    the number of epochs after which it pauses (None: it trains to its end); it is the same run,
    with the same key and checkpoint, wherever it pauses. ``metric`` says which epoch is its best.
    With ``limits`` it measures its network first, and fails where that exceeds them.
    With ``tuning`` it trains on images, where the head of the same run was trained on features.
    """

    params: tuple[tuple[str, Value], ...]
    repeat: int
    seed: int
    epochs: int
    batch_size: int
    validation: Validation
    threads: int
    data_fingerprint: str
    until: int | None = None
    training: str = "fast"
    device: str = "cpu"
    model: ModelSource | None = None
    metric: Metric = ACCURACY
    limits: Limits | None = None
    tuning: FineTuning | None = None

    @classmethod
    def of(
        cls,
        settings: Settings,
        data_fingerprint: str,
        params: tuple[tuple[str, Value], ...],
        repeat: int = 0,
        until: int | None = None,
    ) -> Self:
        """A run of a study, as its settings say; the first repeat measures a limited network."""
        return cls(
            params=params,
            repeat=repeat,
            seed=settings["seed"],
            epochs=settings["epochs"],
            batch_size=batch_size_of(dict(params), settings["batch_size"]),
            validation=settings.validation,
            threads=settings["threads"],
            data_fingerprint=data_fingerprint,
            until=until,
            training=settings["training"],
            device=settings.device,
            model=settings.model,
            metric=settings.metric,
            limits=settings.space.limits if repeat == 0 else None,
        )

    @property
    def recipe(self) -> Recipe:
        """How it is trained, if a custom model reads none of these hyperparameters itself."""
        return Recipe.of(dict(self.params))

    @property
    def key(self) -> str:
        """A short name of the run, the same in every process: 24 hexadecimal digits."""
        # A run is the same whether its space names a default or not: a study may grow.
        implied = network.implied(self.model, self.batch_size).items()
        fields = asdict(self) | {
            "params": [one for one in sorted(self.params) if one not in implied]
        }
        del fields["until"], fields["limits"]
        fields["model"] = self.model and self.model.fingerprint
        if self.tuning is not None:  # which head it is follows from the rest
            del fields["tuning"]["head"]
        usual = {"training": "fast", "device": "cpu", "model": None, "tuning": None}
        for name, value in (usual | {"metric": asdict(ACCURACY)}).items():
            if fields[name] == value:  # as it was named when there was no other
                del fields[name]
        if self.validation.seed is None:  # as it was named before there was such a seed
            del fields["validation"]["seed"]
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:24]

    def entropy(self, purpose: int, *position: int) -> np.random.SeedSequence:
        """The seeds of this repeat, the same for every configuration."""
        return np.random.SeedSequence((self.seed, self.repeat, purpose, *position))

    def initial_seed(self, *position: int) -> int:
        """What decides the first weights: of all, or of a variable (layer, variable)."""
        return int(self.entropy(_INITIAL, *position).generate_state(1)[0])

    def order(self, train: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
        """The indices ``train`` in the order of an epoch (from 0)."""
        return np.random.default_rng(self.entropy(_ORDER, epoch)).permutation(train)

    def noise(self, epoch: int) -> int:
        """What decides dropout and augmentation in an epoch (from 0): 63 bits."""
        return int(self.entropy(_NOISE, epoch).generate_state(1, np.uint64)[0] >> 1)


def batch_size_of(params: Mapping[str, Value], default: int | None) -> int:
    """The images of a batch: a hyperparameter, or the ``default`` of the study."""
    size = params.get("batch_size", default)
    assert isinstance(size, int)  # a space without one was refused
    return size


@dataclass(frozen=True)
class Epoch:
    """What one epoch reports: accuracies in 0..1, seconds of training and validation, Unix time.

    `number` counts from 0. `accuracy` and `loss` are means over the training of the epoch; `loss`
    is of smoothed labels where a run smooths them, `val_loss` never. A run that trains on every
    image has NaN for `val_accuracy` and `val_loss`, and a model without accuracy for both of them.
    `others` are what else it logs, by Keras' names. `cost` is that of the network, in the first
    epoch of a run that has measured it.
    """

    number: int
    accuracy: float
    loss: float
    val_accuracy: float
    val_loss: float
    seconds: float
    ended: float
    others: Mapping[str, float] = field(default_factory=dict)
    cost: Cost | None = None

    @classmethod
    def of(
        cls,
        number: int,
        trained: Mapping[str, float],
        judged: Mapping[str, float],
        seconds: float,
        ended: float,
    ) -> Self:
        """The epoch in which a model has logged this while it trained, and while it was judged."""
        others = {**trained, **{f"val_{name}": value for name, value in judged.items()}}
        names = ("accuracy", "loss", "val_accuracy", "val_loss")
        accuracy, loss, val_accuracy, val_loss = (others.pop(name, math.nan) for name in names)
        return cls(number, accuracy, loss, val_accuracy, val_loss, seconds, ended, others)

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Self:
        """The epoch that `asdict` has made this record of."""
        cost = record["cost"]
        return cls(**{**record, "cost": cost and Cost(**cost)})

    def logs(self) -> dict[str, float]:
        """The values that Keras callbacks receive."""
        return {
            "accuracy": self.accuracy,
            "loss": self.loss,
            "val_accuracy": self.val_accuracy,
            "val_loss": self.val_loss,
            **self.others,
        }

    def series(self) -> dict[str, float]:
        """The values that are stored: its logs and times; no accuracy for a model without one."""
        kept = self.logs()
        if math.isnan(self.accuracy):
            del kept["accuracy"], kept["val_accuracy"]
        return {**kept, "seconds": self.seconds, "ended": self.ended}
