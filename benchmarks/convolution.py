"""Convolutions by way of Fourier coefficients beside TensorFlow's own: what decides which is used.

    python benchmarks/convolution.py [--rounds 7] [--json FILE]

Microseconds an image for the sums and both gradients, in two processes of one thread side by side,
as a study trains; the two ways take turns. `saving` is how many multiplications of the convolution
stand against one of the other way: it is used from `study.training.fast.fourier.WORTH` on.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import recorded

CALLS = 5  # a turn; one alone would be all overhead
SHAPES = [  # side, taps, channels, filters, batch: the tutorial's, then one of modern.toml
    *(
        (14, taps, channels, 2 * channels, batch)
        for taps in (3, 5, 7)
        for channels in (8, 16, 32)
        for batch in (32, 100)
    ),
    (8, 3, 64, 128, 100),
]
Shape = tuple[int, int, int, int, int]


def turns(shape: Shape, rounds: int) -> tuple[float, list[tuple[float, float]]]:
    """The saving, and microseconds an image of both ways, round by round."""
    from study.training.startup import start_tensorflow

    start_tensorflow(1)
    import tensorflow as tf

    from study.training.fast.fourier import Correlation

    side, taps, channels, filters, batch = shape
    images = tf.random.stateless_normal([batch, side, side, channels], [1, 2])
    kernel = tf.random.stateless_normal([taps, taps, channels, filters], [3, 4])
    correlate = Correlation((side, side), (taps, taps))
    ways = [
        with_gradients(lambda x, w: tf.nn.conv2d(x, w, 1, "VALID")),
        with_gradients(correlate),
    ]
    seconds = []
    for _ in range(rounds + 1):  # the first is the tracing
        times = [time.perf_counter()]
        for way in ways:
            for _ in range(CALLS):
                way(images, kernel)
            times.append(time.perf_counter())
        seconds.append([after - before for before, after in pairwise(times)])
    scale = 1e6 / CALLS / batch
    saving = correlate.saving(channels, filters, batch)
    return saving, [(direct * scale, ours * scale) for direct, ours in seconds[1:]]


def with_gradients(compute: Callable[..., Any]) -> Callable[..., Any]:
    """One call for the sums and the gradients by images and kernel, done when it returns."""
    import tensorflow as tf

    def both(images: Any, kernel: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch([images, kernel])
            sums = compute(images, kernel)
        return sums, *tape.gradient(sums, [images, kernel], tf.sign(sums))

    traced = tf.function(both, autograph=False)
    return lambda *operands: [result.numpy() for result in traced(*operands)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the record to this file")
    options = parser.parse_args()
    record: dict[str, Any] = {"machine": recorded.machine("tensorflow"), "results": []}
    print(
        f"{'taps':>4}{'channels':>10}{'batch':>7}{'saving':>8}{'direct':>8}{'ours':>7}{'faster':>8}"
    )
    with get_context("spawn").Pool(2) as pool:
        for shape in SHAPES:
            pair = pool.starmap(turns, [(shape, options.rounds)] * 2, chunksize=1)
            rounds = [both for _, process in pair for both in process]
            direct, ours = (statistics.median(way) for way in zip(*rounds, strict=True))
            faster = statistics.median(one / other for one, other in rounds)
            saving, (_, taps, channels, _, batch) = pair[0][0], shape
            print(
                f"{taps:4}{channels:10}{batch:7}{saving:8.2f}{direct:8.0f}{ours:7.0f}{faster:8.2f}",
                flush=True,
            )
            record["results"].append({"shape": shape, "saving": round(saving, 3), "rounds": pair})
    if options.json:
        recorded.write_whole(options.json, record)


if __name__ == "__main__":
    main()
