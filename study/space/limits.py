"""How large and how slow a network may be: the table `limits` of a space."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import StrictInt, StrictStr

from study.errors import SpaceError
from study.space.keys import Number, closed, shown
from study.space.keys import key as _key

OUT = "out: "
"""Begins the reason why a configuration is not trained."""

_SIZE = "a text like '100 kB' or '1.5 MB'"
_UNITS = {"B": 1, "kB": 1000, "MB": 1000**2}


@dataclass(frozen=True)
class Cost:
    """What a network costs: trainable parameters, bytes of its model file, time for a picture.

    ``milliseconds`` are those of the processor for one picture at a time on the machine that
    trained it, with their standard error; None where nobody has measured them.
    """

    parameters: int
    size: int
    milliseconds: float | None = None
    error: float | None = None

    @property
    def attributes(self) -> dict[str, float]:
        """What is stored of it with a trial."""
        found = {"parameters": self.parameters, "size": self.size}
        if self.milliseconds is None or self.error is None:
            return {**found}
        return {**found, "milliseconds": self.milliseconds, "milliseconds_error": self.error}


@closed
@dataclass(frozen=True)
class Limits:
    """The largest cost of a network; a configuration above it is not trained.

    ``size`` is that of a final model's ``.keras`` file. Raises `SpaceError`.
    """

    parameters: Annotated[StrictInt | None, _key("a whole number of at least 1", ge=1)] = None
    size: Annotated[StrictStr | None, _key(_SIZE)] = None
    milliseconds: Annotated[Number | None, _key("a number above 0", gt=0)] = None

    def __post_init__(self) -> None:
        if self.size is not None and not self.bytes:
            raise SpaceError(f"limits.size: {shown(self.size)} is not allowed; give {_SIZE}")

    @property
    def bytes(self) -> int | None:
        """The limit of the size in bytes; 0 for a text that is no size."""
        if self.size is None:
            return None
        found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(B|kB|MB)", self.size.strip())
        return round(float(found[1]) * _UNITS[found[2]]) if found else 0

    def exceeded(self, cost: Cost) -> dict[str, str]:
        """What of a cost is above its limit, by the name of the limit, in words."""
        found: dict[str, str] = {}
        if self.parameters is not None and cost.parameters > self.parameters:
            found["parameters"] = f"{cost.parameters:,} parameters, more than {self.parameters:,}"
        if self.bytes is not None and cost.size > self.bytes:
            found["size"] = f"{size_text(cost.size)}, more than {self.size}"
        limit, time = self.milliseconds, cost.milliseconds
        if limit is not None and time is not None and time > limit:
            error = f" ± {cost.error:.2g}" if cost.error is not None else ""
            found["milliseconds"] = f"{time:.3g}{error} ms a picture, more than {limit:g} ms"
        return found

    def reason(self, cost: Cost) -> str | None:
        """Why a network of this cost is not trained, in one line; None if it fits."""
        exceeded = self.exceeded(cost)
        return f"{OUT}{'; '.join(exceeded.values())}" if exceeded else None


def size_text(size: int) -> str:
    """A number of bytes for people."""
    return f"{size / 1000**2:.2f} MB" if size >= 1000**2 else f"{size / 1000:.1f} kB"
