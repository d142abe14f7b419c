"""Which kind of device trains: the processor, or a GPU.

Nothing here imports TensorFlow or JAX: `nvidia-smi` names the cards, and the packages that are
installed say which library can use them. The process that trains asks its library again
(`startup`).
"""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable, Iterator, Mapping
from ctypes.util import find_library
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Literal, get_args

from study.errors import SettingsError

Kind = Literal["cpu", "gpu"]

OLDEST_DRIVER: Mapping[int, tuple[int, ...]] = {12: (525, 60, 13), 13: (580, 65, 6)}
"""The oldest Linux driver for each major version of CUDA, from NVIDIA's release notes."""

DRIVER = "libcuda.so.1"
"""The library of NVIDIA's driver that whatever computes on a card loads."""

HIDDEN = "CUDA_VISIBLE_DEVICES hides every GPU of this machine"

_JAX = {12: "jax-cuda12-plugin", 13: "jax-cuda13-plugin"}
_CURE = "make setup GPU=1, or pip install '.[gpu,jax]'"
_NAMES = {"jax": "JAX", "tensorflow": "TensorFlow"}
_PATIENCE = 30.0  # seconds; nvidia-smi wakes a card that nobody uses


@dataclass(frozen=True)
class Card:
    """A GPU as `nvidia-smi` shows it; ``driver`` as in 550.54.15.

    ``memory`` in MiB; None where the card has none of its own, but the processor's.
    """

    uuid: str
    name: str
    memory: int | None
    driver: str

    def __str__(self) -> str:
        memory = f"{self.memory / 1024:.0f} GiB, " if self.memory else ""
        return f"{self.name} ({memory}driver {self.driver})"


@dataclass(frozen=True)
class Devices:
    """The ``cards`` that may be used here, and the installed ``libraries`` that can use them.

    ``kind`` is what a study trains on if nobody says; ``problem`` says why it is not a GPU.
    ``remote``: runs are trained elsewhere, where only the workers know what there is.
    """

    kind: Kind = "cpu"
    cards: tuple[Card, ...] = ()
    libraries: tuple[str, ...] = ()
    problem: str = "nvidia-smi shows no GPU here"
    remote: bool = False

    def refusal(self, kind: str, training: str) -> str | None:
        """Why runs cannot be trained so on this kind of device; None where they can."""
        if kind == "cpu" or self.remote:
            return None
        if self.kind == "cpu":
            return self.problem
        library = "jax" if training == "grouped" else "tensorflow"
        if library in self.libraries:
            return None
        return f"--training {training} needs {_NAMES[library]} with CUDA that fits: {_CURE}"

    def check(self, kind: str, training: str) -> None:
        """Raise SettingsError where ``--device kind`` cannot be had."""
        if kind not in get_args(Kind):
            raise SettingsError(f"--device {kind}: choose {' or '.join(get_args(Kind))}")
        if why := self.refusal(kind, training):
            raise SettingsError(f"--device {kind}: {why}")


def nvidia_smi() -> str:
    """Its lines of UUID, name, MiB of memory and driver version.

    Raises FileNotFoundError where there is none, OSError or SubprocessError where it fails.
    """
    asked = "--query-gpu=uuid,name,memory.total,driver_version"
    return subprocess.run(  # noqa: S603 - nothing in it comes from outside
        ["nvidia-smi", asked, "--format=csv,noheader,nounits"],  # noqa: S607 - PATH knows where
        capture_output=True,
        text=True,
        check=True,
        timeout=_PATIENCE,
    ).stdout


def installed(package: str) -> list[str] | None:
    """What an installed package requires, its extras too; None where it is not installed."""
    try:
        return metadata.requires(package) or []
    except metadata.PackageNotFoundError:
        return None


def devices(
    environ: Mapping[str, str],
    ask: Callable[[], str] = nvidia_smi,
    installed: Callable[[str], list[str] | None] = installed,
    find: Callable[[str], str | None] = find_library,
    load: Callable[[str], object] = ctypes.CDLL,
) -> Devices:
    """What this machine offers: its cards, of those that ``CUDA_VISIBLE_DEVICES`` leaves.

    ``ask`` is `nvidia_smi`, ``installed`` what a package requires, ``find`` a library's file.
    """
    try:
        found = [_card(line) for line in ask().splitlines() if line.strip()]
    except FileNotFoundError:
        return CPU
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        output = getattr(error, "stdout", None) or getattr(error, "stderr", None) or str(error)
        return Devices(problem=f"nvidia-smi fails ({' '.join(str(output).split())[:200]})")
    cards = tuple(_visible(found, environ.get("CUDA_VISIBLE_DEVICES")))
    if not cards:
        return Devices(problem=HIDDEN) if found else CPU
    libraries, problem = _usable(cards[0], installed, find, load)
    return Devices("gpu" if libraries else "cpu", cards, libraries, problem)


def _usable(
    card: Card,
    installed: Callable[[str], list[str] | None],
    find: Callable[[str], str | None],
    load: Callable[[str], object],
) -> tuple[tuple[str, ...], str]:
    """The libraries that can use a card; where none can, what is wrong."""
    try:
        load(DRIVER)
    except OSError:  # in a container nvidia-smi may be all there is
        return (), f"{card.name} is here, but the driver's {DRIVER} cannot be loaded"
    needs = dict(_libraries(installed, find))
    if not needs:
        return (), f"{card.name} is here, but neither TensorFlow nor JAX with CUDA: {_CURE}"
    fitting = tuple(name for name, major in needs.items() if not _too_old(card.driver, major))
    if fitting:
        return fitting, ""
    major = min(needs.values())
    oldest = ".".join(f"{part:02d}" for part in OLDEST_DRIVER[major])
    return (), (
        f"driver {card.driver} of {card.name} is too old for CUDA {major}: "
        f"update it to {oldest} or later"
    )


CPU = Devices()
"""The processor alone."""


def offered(
    environ: Mapping[str, str],
    scheduler: str | None = None,
    resources: Mapping[str, float] | None = None,
) -> Devices:
    """The devices of this machine, or of a cluster: GPUs where ``resources`` of a run name one."""
    if scheduler is None:
        return devices(environ)
    named = {name.upper() for name in resources or {}}
    return Devices("gpu" if "GPU" in named else "cpu", remote=True)


def _card(line: str) -> Card:
    uuid, name, memory, driver = (part.strip() for part in line.split(","))
    return Card(uuid, name, int(memory) if memory.isdigit() else None, driver)


def _visible(cards: list[Card], chosen: str | None) -> Iterator[Card]:
    """The cards that CUDA shows: numbers, or the beginnings of UUIDs, up to the first wrong one."""
    if chosen is None:
        yield from cards
        return
    for word in (part.strip() for part in chosen.split(",")):
        if word.startswith("MIG-") and cards:  # a part of a card, which nvidia-smi does not list
            yield replace(cards[0], uuid=word, name=f"a part of {cards[0].name}", memory=None)
            continue
        fitting = [
            card
            for number, card in enumerate(cards)
            if word == str(number) or (word.startswith("GPU-") and card.uuid.startswith(word))
        ]
        if len(fitting) != 1:
            return
        yield fitting[0]


def _libraries(
    installed: Callable[[str], list[str] | None], find: Callable[[str], str | None]
) -> Iterator[tuple[str, int]]:
    """The libraries that are installed with CUDA, and the major version of it that each wants."""
    for major, plugin in _JAX.items():
        if installed(plugin) is not None:
            yield "jax", major
    wanted = _cuda_packages(installed)
    major = 13 if any(name.endswith("-cu13") for name in wanted) else 12
    wheels = wanted and not missing_cuda(installed)
    # The system's own CUDA does as well, where it is of that version.
    if wheels or ((find("cudart") or "").endswith(f".so.{major}") and find("cudnn")):
        yield "tensorflow", major


def _cuda_packages(installed: Callable[[str], list[str] | None]) -> list[str]:
    """The packages that TensorFlow's own extra for CUDA is made of."""
    wanted = [line for line in installed("tensorflow") or () if 'extra == "and-cuda"' in line]
    return [line.partition("<")[0].partition(">")[0].strip() for line in wanted]


def missing_cuda(installed: Callable[[str], list[str] | None] = installed) -> list[str]:
    """The packages with CUDA that TensorFlow wants and does not find."""
    return [name for name in _cuda_packages(installed) if installed(name) is None]


def _too_old(driver: str, major: int) -> bool:
    return tuple(int(part) for part in driver.split(".")) < OLDEST_DRIVER[major]
