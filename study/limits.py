"""Limits of what another program on the network may take: time and memory.

A time-out of a socket bounds the wait for the next byte, not the wait for the answer: a server
that sends a byte every few seconds is waited for without end.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

Answer = TypeVar("Answer")

LONGEST_ANSWER = 64 * 2**20
"""Bytes that are read of an answer that has to fit into memory."""


class Body(Protocol):
    """An answer that can be read piece by piece."""

    def read(self, amount: int, /) -> bytes: ...


def within(seconds: float, request: Callable[[], Answer]) -> Answer:
    """Make a request in a thread and wait for it at most ``seconds``; raises ``TimeoutError``.

    A request that took too long is abandoned: its thread ends with its connection or the process.
    """
    outcome: queue.SimpleQueue[tuple[Answer, None] | tuple[None, BaseException]]
    outcome = queue.SimpleQueue()

    def work() -> None:
        try:
            outcome.put((request(), None))
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            outcome.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        answer, error = outcome.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if error is not None:
        raise error
    return answer  # type: ignore[return-value]


def read_whole(body: Body, most: int = LONGEST_ANSWER) -> bytes:
    """All of an answer; ``ValueError`` where it has more than ``most`` bytes."""
    content = body.read(most + 1)
    if len(content) > most:
        raise ValueError(f"the answer has more than {most} bytes")
    return content
