"""JAX is imported in a process of its own, with Keras on it, and keeps what it has compiled."""

from __future__ import annotations

import logging
import os
import socket
import sys
import warnings
from typing import Any

from study.errors import SettingsError
from study.workers.devices import user_cache

_SETTINGS = {
    "JAX_DEFAULT_MATMUL_PRECISION": "highest",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # a card can be shared
}


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
            f"JAX sees no GPU on {socket.gethostname()}; nothing is lost: what is missing says "
            "study doctor"
        )
    return jax
