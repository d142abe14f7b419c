"""What every reader hands on: images and labels as stored, not yet judged or scaled."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Part:
    """Images and labels as stored, and where each was found, for the messages about them.

    A label stands for its place in ``names`` where there are any, else it is its class's own name.
    """

    images: NDArray[Any]
    labels: NDArray[Any]
    images_in: str
    labels_in: str
    names: tuple[str, ...] = ()


Parts = tuple[Part, Part | None]
"""The training part, and the test part where the files bring one."""
