"""The engine: a pool of one process that trains many runs at once, with JAX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from study.workers.jax.worker import InGroups
from study.workers.pool import Place, Pool

if TYPE_CHECKING:
    from study.data.dataset import Dataset
    from study.training.checkpoint import Checkpoints


def jax_engine(
    dataset: Dataset,
    jobs: int,
    checkpoints: Checkpoints | None,
    device: str,
    gpus: Sequence[str] = (),
) -> Pool:
    """An engine that trains up to ``jobs`` runs at once, on the first of ``gpus`` (UUIDs)."""
    environ = {"KERAS_BACKEND": "jax"}
    if gpus:
        environ["CUDA_VISIBLE_DEVICES"] = gpus[0]
    worker = InGroups(dataset.without_test(), checkpoints, device)
    return Pool(worker, [Place(environ=environ)], checkpoints, capacity=jobs)
