"""The GPUs of this machine: which there are, which library sees them, and which study has them.

`nvidia-smi` names the cards; if there are any, a child process asks each library how many it sees,
so that nothing is imported here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock, Timeout

from study.errors import SettingsError, StudyLocked

NONE = "nvidia-smi shows no GPU here"
HIDDEN = "CUDA_VISIBLE_DEVICES hides every GPU of this machine"
_CURE = "make setup GPU=1, or pip install '.[gpu,jax]'"
_PATIENCE = 120.0  # seconds; a card may have to wake, and CUDA to compile for a new one
_COUNT = {
    "tensorflow": "import tensorflow; print(len(tensorflow.config.list_physical_devices('GPU')))",
    "jax": "import jax; print(jax.device_count() if jax.default_backend() == 'gpu' else 0)",
}


@dataclass(frozen=True)
class Card:
    """A GPU: its UUID, name, memory in MiB (None: shared with the processor) and driver."""

    uuid: str
    name: str
    memory: int | None
    driver: str

    def __str__(self) -> str:
        memory = f"{self.memory / 1024:.0f} GiB, " if self.memory else ""
        return f"{self.name} ({memory}driver {self.driver})"


@dataclass(frozen=True)
class Devices:
    """The ``cards`` that may be used here, and the ``libraries`` that see them.

    ``kind``, "cpu" or "gpu", is the default of a study; ``problem`` says why it is not a GPU. If
    ``remote``, runs are trained on a cluster, and only its workers know what there is.
    """

    kind: str = "cpu"
    cards: tuple[Card, ...] = ()
    libraries: tuple[str, ...] = ()
    problem: str = NONE
    remote: bool = False

    def refusal(self, kind: str, library: str) -> str | None:
        """Why ``library`` cannot train on this kind of device; None if it can."""
        if kind == "cpu" or self.remote or library in self.libraries:
            return None
        return self.problem or f"{library} does not see it: {_CURE}"

    def check(self, kind: str, library: str) -> None:
        """Raise SettingsError if ``library`` cannot train with ``--device kind``."""
        if kind not in ("cpu", "gpu"):
            raise SettingsError(f"--device {kind}: choose cpu or gpu")
        if why := self.refusal(kind, library):
            raise SettingsError(f"--device {kind}: {why}")


CPU = Devices()
"""No GPU."""


def nvidia_smi() -> str:
    """A line for each card: UUID, name, MiB of memory, driver version; "" without nvidia-smi."""
    query = "--query-gpu=uuid,name,memory.total,driver_version"
    try:
        return subprocess.run(  # noqa: S603 - nothing in it comes from outside
            ["nvidia-smi", query, "--format=csv,noheader,nounits"],  # noqa: S607 - PATH knows where
            capture_output=True,
            text=True,
            check=True,
            timeout=_PATIENCE,
        ).stdout
    except FileNotFoundError:
        return ""


def count(library: str) -> tuple[int, str]:
    """How many GPUs a library sees, and the last line of what it says if it sees none."""
    if find_spec(library) is None:
        return 0, "not installed"
    try:
        done = subprocess.run(  # noqa: S603 - nothing in it comes from outside
            [sys.executable, "-P", "-c", _COUNT[library]],
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE,
            env=os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
        )
    except subprocess.TimeoutExpired:
        return 0, f"no answer in {_PATIENCE:.0f} s"
    seen = int(done.stdout.split()[-1]) if done.returncode == 0 else 0
    return seen, (done.stderr.strip().splitlines() or [""])[-1][:200]


def devices(
    environ: Mapping[str, str],
    ask: Callable[[], str] = nvidia_smi,
    count: Callable[[str], tuple[int, str]] = count,
) -> Devices:
    """The cards that ``CUDA_VISIBLE_DEVICES`` allows, and the libraries that see them."""
    try:
        found = [_card(line) for line in ask().splitlines() if line.strip()]
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        output = getattr(error, "stdout", None) or getattr(error, "stderr", None) or str(error)
        return Devices(problem=f"nvidia-smi fails ({' '.join(str(output).split())[:200]})")
    cards = _visible(found, environ.get("CUDA_VISIBLE_DEVICES"))
    if not cards:
        return Devices(problem=HIDDEN) if found else CPU
    with ThreadPoolExecutor() as pool:
        answers = dict(zip(_COUNT, pool.map(count, _COUNT), strict=True))
    libraries = tuple(name for name, (seen, _) in answers.items() if seen)
    if not libraries:
        each = ", ".join(f"{name}: {why or 'sees none'}" for name, (_, why) in answers.items())
        problem = f"{cards[0].name} is here, but no library sees it ({each}): {_CURE}"
        return Devices(cards=cards, problem=problem)
    return Devices("gpu", cards[: max(seen for seen, _ in answers.values())], libraries, "")


def available_devices(
    environ: Mapping[str, str],
    scheduler: str | None = None,
    resources: Mapping[str, float] | None = None,
) -> Devices:
    """The devices of this machine, or of a cluster: GPUs if ``resources`` of a run name one."""
    if scheduler is None:
        return devices(environ)
    named = {name.upper() for name in resources or {}}
    return Devices("gpu" if "GPU" in named else "cpu", remote=True)


def _card(line: str) -> Card:
    uuid, name, memory, driver = (part.strip() for part in line.split(","))
    return Card(uuid, name, int(memory) if memory.isdigit() else None, driver)


def _visible(cards: Sequence[Card], chosen: str | None) -> tuple[Card, ...]:
    """The cards that CUDA shows: by number, or by the beginning of a UUID."""
    if chosen is None:
        return tuple(cards)
    visible = []
    for word in map(str.strip, chosen.split(",")):
        if word.startswith("MIG-") and cards:  # a part of a card, which nvidia-smi does not list
            visible.append(Card(word, f"a part of {cards[0].name}", None, cards[0].driver))
        for number, card in enumerate(cards):
            if word == str(number) or (word[4:] and card.uuid.startswith(word)):
                visible.append(card)
    return tuple(visible)


def user_cache() -> Path:
    """The program's folder in the user's cache; it may not exist."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "mnist-study"


@contextmanager
def held(cards: Sequence[Card], most: int | None = None) -> Iterator[tuple[Card, ...]]:
    """Hold the cards that no other study of this user holds, not more than ``most``.

    The system drops the lock of a dead process. Raises ``StudyLocked`` if all cards are taken.
    """
    with ExitStack() as locks:
        free: list[Card] = []
        for card in cards:
            if len(free) == most:
                break
            folder = user_cache() / "gpus"
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / f"{re.sub(r'[^A-Za-z0-9-]', '_', card.uuid)}.lock")
            try:
                locks.enter_context(lock.acquire(timeout=0))
            except Timeout:
                continue
            free.append(card)
        if cards and not free:
            names = " and ".join(card.name for card in cards)
            raise StudyLocked(
                f"another study trains on {names} (nvidia-smi shows its process): wait for it, "
                "show this one another card with CUDA_VISIBLE_DEVICES, or start one with "
                "--device cpu; nothing is lost"
            )
        yield tuple(free)
