"""What a card could do with a step of a group, and how long it waits: for `benchmarks/gpu.py`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from study.data.dataset import Dataset

BATCH = 100


def multiplied(
    params: dict[str, Any], data: Dataset, runs: int, precision: str
) -> tuple[float, int]:
    """Seconds and floating-point operations of the bare products in a step of so many runs."""
    import jax
    import jax.numpy as jnp

    alone, flop = 0.0, 0
    kind = jnp.bfloat16 if precision == "fast" else jnp.float32
    multiply = jax.jit(lambda *pair: jnp.matmul(*pair, preferred_element_type=jnp.float32))
    for m, k, n in products(params, data):
        pair = jnp.ones((runs, m, k), kind), jnp.ones((runs, k, n), kind)
        multiply(*pair).block_until_ready()
        times, began = 20, time.perf_counter()
        for _ in range(times):
            out = multiply(*pair)
        out.block_until_ready()
        alone += (time.perf_counter() - began) / times
        flop += 2 * runs * m * k * n
    return alone, flop


def products(params: dict[str, Any], data: Dataset) -> Iterator[tuple[int, int, int]]:
    """The (m, k, n) of each product of matrices in a step of one run, forward and back."""
    from study.training.network import build_cnn

    model = build_cnn(params, data.input_shape, data.num_classes)
    for place, layer in enumerate(layer for layer in model.layers if hasattr(layer, "kernel")):
        *width, outputs = layer.kernel.shape
        rows = BATCH * int(np.prod(layer.output.shape[1:-1]))
        inner = int(np.prod(width))
        yield rows, inner, outputs
        yield inner, rows, outputs
        if place:  # nobody asks for the gradient of the images
            yield rows, outputs, inner


def waited(trace: Path) -> float:
    """The share of the time of a trace in which the device computed nothing.

    Of the time from the first to the last of what it computed; on the processor its threads' work.
    """
    import jax

    spans: list[tuple[float, float]] = []
    for plane in jax.profiler.ProfileData.from_file(str(trace)).planes:
        card = plane.name.startswith("/device:GPU")
        for line in plane.lines:
            if line.name.startswith("Stream" if card else "tf_XLAPjRtCpuClient"):
                events = ((one.start_ns, one.start_ns + one.duration_ns) for one in line.events)
                spans += [(first, last) for first, last in events if last > first]
    spans.sort()
    busy, until = 0.0, spans[0][0]
    for first, last in spans:
        busy += max(0.0, last - max(first, until))
        until = max(until, last)
    return 1 - busy / (until - spans[0][0])
