"""One study a GPU: a lock for each card, which the system takes from a dead process."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from study.errors import StudyLocked
from study.training.device import Card


@contextmanager
def held(
    cards: Sequence[Card], most: int | None = None, folder: str | None = None
) -> Iterator[tuple[Card, ...]]:
    """Hold those of ``cards`` that no other study of this machine holds, not more than ``most``.

    ``folder`` is where the locks lie, among the temporary files if left out. Raises
    ``StudyLocked`` where there are cards and all of them are taken.
    """
    with ExitStack() as locks:
        free: list[Card] = []
        for card in cards:
            if len(free) == most:
                break
            lock = FileLock(Path(folder or tempfile.gettempdir(), f"study-{card.uuid}.lock"))
            try:
                locks.enter_context(lock.acquire(timeout=0))
            except Timeout:
                continue
            except OSError:  # another user's file: whether that one is driven cannot be known
                pass
            free.append(card)
        if cards and not free:
            names = " and ".join(card.name for card in cards)
            raise StudyLocked(
                f"another study trains on {names} (nvidia-smi shows its process): wait for it, "
                "show this one another card with CUDA_VISIBLE_DEVICES, or start one with "
                "--device cpu; nothing is lost"
            )
        yield tuple(free)
