"""Successive halving: many configurations for a few epochs, the better half goes on."""

from __future__ import annotations

import math


def rungs(epochs: int) -> tuple[int, ...]:
    """The epochs at which runs may pause: halves of the whole, rounded up; at least an eighth."""
    return tuple(sorted({math.ceil(epochs / 2**power) for power in range(4)}))
