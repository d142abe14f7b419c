"""The process in which runs are trained in groups; it alone imports JAX."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from study.errors import StudyError
from study.workers.child import Done, Orders, Send, Start
from study.workers.engine import EpochReported, Event, Notice, reason, work

if TYPE_CHECKING:
    from study.data.dataset import Dataset
    from study.training.checkpoint import Checkpoints
    from study.workers.jax.groups import Groups, Member


@dataclass(frozen=True)
class InGroups:
    """Trains an epoch of every run it has, and again; those of one network together."""

    dataset: Dataset
    checkpoints: Checkpoints | None
    device: str

    def serve(self, orders: Orders, send: Send) -> None:
        from study.workers.jax.startup import start_jax

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
