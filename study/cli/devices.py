"""What the doctor says of GPUs: whether the libraries see what `nvidia-smi` does, or what it takes.

A library counts as one that could train on a GPU where `study.training.device` says so; here it is
started, and asked.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from study.training.device import CPU, DRIVER, HIDDEN, Devices, missing_cuda

_JAX = "import jax; print(jax.device_count() if jax.default_backend() == 'gpu' else 0)"
_PATIENCE = 120  # seconds; CUDA may compile what a new card needs


@dataclass(frozen=True)
class Library:
    """A library that trains: the version of it and of its CUDA, and how many GPUs it ``sees``.

    ``missing`` says what it needs to see one, where it is not installed with that.
    """

    key: str
    shown: str
    cuda: str | None
    sees: int
    missing: str = ""


def tensorflow() -> Library:
    """What TensorFlow sees, in this process."""
    from study.training.startup import start_tensorflow

    start_tensorflow(1)
    import tensorflow as tf

    missing = ", ".join(missing_cuda())
    return Library(
        "tensorflow",
        f"TensorFlow {version('tensorflow')}",
        tf.sysconfig.get_build_info().get("cuda_version"),
        len(tf.config.list_physical_devices("GPU")),
        missing and f"{missing} (make setup GPU=1)",
    )


def jax() -> Library | None:
    """What JAX sees, in a process of its own: it takes a card's memory; None without JAX."""
    try:
        shown = f"JAX {version('jax')}"
    except PackageNotFoundError:
        return None
    for cuda in (12, 13):
        try:
            version(f"jax-cuda{cuda}-plugin")
        except PackageNotFoundError:
            continue
        return Library("jax", shown, str(cuda), counted(_JAX))
    return Library("jax", shown, None, 0, "CUDA (pip install '.[jax]')")


def counted(program: str, patience: float = _PATIENCE) -> int:
    """The number that a program writes last, in a process of its own; 0 without an answer."""
    try:
        done = subprocess.run(  # noqa: S603 - nothing in it comes from outside
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=False,
            timeout=patience,
            env=os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
        )
    except subprocess.TimeoutExpired:
        return 0
    return int(done.stdout.split()[-1]) if done.returncode == 0 else 0


def driver_problem(load: Callable[[str], Any] = ctypes.CDLL) -> str:
    """What the driver says when it is asked as the libraries do; empty where it is fine."""
    code = load(DRIVER).cuInit(0)
    return f"the driver refuses to start CUDA (cuInit gives {code})" if code else ""


def judged(
    here: Devices, libraries: Sequence[Library], driver_problem: Callable[[], str] = driver_problem
) -> tuple[bool | None, str]:
    """Whether GPUs can be trained on (None: there is none to be used), and what to say of that."""
    if not here.cards:
        return (None if here.problem in (CPU.problem, HIDDEN) else False), here.problem
    cards = ", ".join(map(str, here.cards))
    if here.problem:
        return False, f"{cards}: {here.problem}"
    blind = any(not one.sees and not one.missing for one in libraries)
    why = (driver_problem() or "import it in Python and read its log") if blind else ""
    fine = all(one.sees for one in libraries if one.key in here.libraries)
    return fine, "; ".join([cards, *(_said(one, why) for one in libraries)])


def _said(library: Library, why: str) -> str:
    shown = f"{library.shown} with CUDA {library.cuda}" if library.cuda else library.shown
    if library.sees:
        return f"{shown} sees {library.sees}"
    if library.missing:
        return f"{library.shown} misses {library.missing}"
    return f"{shown} sees none: {why}"
