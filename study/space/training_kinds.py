"""The ways to compute training steps that ``--training`` chooses from: one table."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingKind:
    """A way to compute training steps.

    ``words`` describe it to the user, ``library`` is what Keras computes with, ``devices`` are
    those it is for, ``lacks`` the hyperparameters it cannot do. With ``runs_at_once`` above 1 a
    process trains that many runs as one program; then ``engine`` is the engine that can, on this
    machine alone.
    """

    words: str
    library: str = "tensorflow"
    devices: tuple[str, ...] = ("cpu", "gpu")
    runs_at_once: int = 1
    lacks: tuple[str, ...] = ()
    engine: str | None = None


KINDS: Mapping[str, TrainingKind] = {
    "fast": TrainingKind("Keras' own steps with faster layers", devices=("cpu",)),
    "grouped": TrainingKind(
        "groups of runs, with JAX",
        "jax",
        runs_at_once=16,
        lacks=("class_weight", "mixup"),
        engine="jax",
    ),
    "stock": TrainingKind("Keras' own steps"),
}
"""By name; the first that fits a device is the default there."""


def default(device: str, libraries: Collection[str]) -> str:
    """The kind to use on a device for which these ``libraries`` are installed."""
    for name, kind in KINDS.items():
        if device in kind.devices and (device == "cpu" or kind.library in libraries):
            return name
    return "stock"
