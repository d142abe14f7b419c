"""The engine: a pool of one process that trains many runs at once; that process imports JAX."""

from __future__ import annotations

import logging
import os
import socket
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from study.errors import SettingsError, StudyError
from study.workers.child import Done, Orders, Send, Start
from study.workers.devices import user_cache
from study.workers.engine import EpochReported, Event, Notice, reason, work
from study.workers.pool import Place, Pool

if TYPE_CHECKING:
    from study.data.dataset import Dataset
    from study.training.checkpoint import Checkpoints
    from study.workers.jax.groups import Groups, Member

_SETTINGS = {
    "JAX_DEFAULT_MATMUL_PRECISION": "highest",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # a card can be shared
}


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


@dataclass(frozen=True)
class InGroups:
    """Trains an epoch of every run it has, and again; those of one network together."""

    dataset: Dataset
    checkpoints: Checkpoints | None
    device: str

    def serve(self, orders: Orders, send: Send) -> None:
        start_jax(self.device)
        from study.workers.jax.groups import Groups

        try:
            groups = Groups(self.dataset, self.checkpoints)
        except Exception as error:
            raise StudyError(f"training with JAX has failed: {reason(error)}") from error
        self._train(groups, orders, send)

    def _train(self, groups: Groups, orders: Orders, send: Send) -> None:
        active: dict[int, tuple[Member, Iterator[Event]]] = {}
        stopped: set[int] = set()
        while True:
            while not active or not orders.empty():
                order = orders.get()
                if isinstance(order, Start):
                    member = groups.add(order.run)
                    active[order.number] = (
                        member,
                        work(
                            order.number,
                            order.run,
                            partial(_training, groups, member),
                            self.checkpoints,
                            partial(stopped.__contains__, order.number),
                        ),
                    )
                elif order.number in active:
                    stopped.add(order.number)
            for number, (member, events) in list(active.items()):
                event = next(events, None)
                if event is not None:
                    send(event)
                if not isinstance(event, EpochReported | Notice):
                    del active[number]
                    groups.remove(member)
                    send(Done(number))


def _training(groups: Groups, member: Member, _: Any) -> Any:
    return groups.train(member)


def start_jax(device: str) -> Any:
    """Import JAX, with Keras on it, to train on this kind of device; returns JAX.

    float32 is that, not TF32. What is compiled is kept in the user's cache. Raises SettingsError
    where JAX is not installed, or sees no GPU for "gpu".
    """
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ["JAX_PLATFORMS"] = "cpu" if device == "cpu" else "cuda,cpu"
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(user_cache() / "jax"))
    # Keras would import it where it finds it, to save a model: that takes seconds.
    sys.modules.setdefault("tensorflow", None)  # type: ignore[arg-type]
    try:
        import jax
    except ImportError:
        raise SettingsError("JAX is not installed here: pip install '.[jax]'") from None
    logging.getLogger("jax").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")  # nothing of this process is meant for the screen
    if device == "gpu" and jax.default_backend() != "gpu":  # it falls back without a word
        raise SettingsError(
            f"JAX sees no GPU on {socket.gethostname()}; nothing is lost; study doctor says "
            "what is missing"
        )
    return jax
