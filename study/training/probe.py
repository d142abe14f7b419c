"""Builds the networks of a study once, in a process of its own, before anything of it is made.

What is in a model's file runs here and in workers, and nowhere else: whatever it does, prints or
breaks, the command that asked says in one line what is wrong.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from study.errors import ModelError, StudyError
from study.space.metric import ACCURACY, Metric
from study.space.model_source import ModelSource, NetworkFacts
from study.space.search_space import Value

_FAINT = 1 / 64  # of a scale: whoever wrote it has images of 0..255 in mind


def probe(
    source: ModelSource,
    configurations: Sequence[Mapping[str, Value]],
    input_shape: tuple[int, ...],
    num_classes: int,
    metric: Metric = ACCURACY,
    *,
    library: str = "tensorflow",
) -> NetworkFacts:
    """Build a network of each configuration; raises ModelError, in one line, where one cannot be.

    Also where none of them has read a hyperparameter that is not the trainer's own. ``library`` is
    what Keras computes with.
    """
    each = [dict(one) for one in configurations]
    question = [asdict(source), each, input_shape, num_classes, asdict(metric), library]
    done = subprocess.run(
        [sys.executable, "-c", "from study.training.probe import main; main()"],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise ModelError(
            f"{source.name}: the process that tried it has ended with exit code {done.returncode}: "
            "build it in a Python of your own to see why"
        ) from None
    if "wrong" in answer:
        raise ModelError(answer["wrong"])
    return NetworkFacts(**answer)


def main() -> None:
    """Answer the question that comes in; what the model's file prints goes nowhere."""
    answer_to, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    source, configurations, input_shape, num_classes, metric, library = json.load(sys.stdin)
    goal = Metric(**metric)
    try:
        _start(library)
        given = ModelSource(**source), configurations, tuple(input_shape), num_classes
        answer = asdict(tried(*given, goal))
    except StudyError as error:
        answer = {"wrong": str(error)}
    os.write(answer_to, json.dumps(answer).encode())


def _end_with(parent: int) -> None:
    """End this process when the one that asked is gone: a model's file may never end."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _start(library: str) -> None:
    """Start what will train."""
    if library != "tensorflow":
        os.environ |= {"KERAS_BACKEND": library, "JAX_PLATFORMS": "cpu"}
        sys.modules["tensorflow"] = None  # type: ignore[assignment]  # Keras would import it
    else:
        from study.training.startup import start_tensorflow

        start_tensorflow(1)


def tried(
    source: ModelSource,
    configurations: Sequence[Mapping[str, Any]],
    input_shape: tuple[int, ...],
    num_classes: int,
    metric: Metric = ACCURACY,
) -> NetworkFacts:
    """As `probe`, in this process, which has started what will train."""
    from study.training import recipe
    from study.training.custom_model import OURS, build, recipe_of

    seen: set[str] = set()
    found: list[NetworkFacts] = []
    for params in configurations:
        model, read = build(source, params, input_shape, num_classes, metric=metric)
        recipe.check(recipe_of(params, read))
        seen |= read
        _require_contrast(source, model)
        classes, unloadable = _saved_and_loaded(source, model)
        found.append(NetworkFacts(model.count_params(), classes, unloadable))
    if "restore_best_weights" in seen:
        raise ModelError(
            f"{source.name} reads restore_best_weights, which is the trainer's own: rename it"
        )
    for name in configurations[0]:
        if name not in seen | OURS:
            raise ModelError(
                f"{source.name} does not read {name!r}: let it, or take it out of the space"
            )
    return NetworkFacts(
        found[0].parameters,
        tuple(sorted({name for one in found for name in one.classes})),
        next((one.unloadable for one in found if one.unloadable), None),
    )


def _require_contrast(source: ModelSource, model: Any) -> None:
    """Refuse a model that scales its images as if they were 0..255; it would see black alone."""
    import keras

    def inside(layer: Any) -> Iterator[Any]:
        yield layer
        for one in getattr(layer, "layers", ()):
            yield from inside(one)

    first = next((one for one in inside(model) if isinstance(one, keras.layers.Rescaling)), None)
    if first is not None and 0 < abs(largest := float(np.max(first.scale))) < _FAINT:
        raise ModelError(
            f"{source.name}: its first Rescaling multiplies images by {largest:.2g}, but they come "
            "within 0..1 here: take the layer out, or put layers.Rescaling(255.0) before it"
        )


def _saved_and_loaded(source: ModelSource, model: Any) -> tuple[tuple[str, ...], str | None]:
    """The classes of the file that a saved model needs, and why it cannot be loaded, if so.

    Raises ModelError where it cannot even be saved, and would have been trained to its end.
    """
    import keras

    from study.training import keras_file, user_code

    own = user_code.classes(source)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.keras")
        try:
            model.save(path)
        except NotImplementedError:
            raise ModelError(
                f"{source.name}: Keras cannot save it: give the class {type(model).__name__}, or "
                "the layer that is the reason, a method get_config"
            ) from None
        except Exception as error:  # noqa: BLE001 - whatever a layer of the user's did
            problem = " ".join(str(error).split())[:300]
            raise ModelError(f"{source.name}: Keras cannot save it: {problem}") from None
        described = keras_file.description(path)
        described.pop("compile_config", None)
        needed = tuple(name for name in keras_file.foreign(described) if name in own)
        if others := keras_file.foreign(described, own):
            return needed, f"it holds a {others[0]}, which is not loaded from a file"
        if not needed:
            return (), None
        try:
            loaded = keras.models.load_model(path, compile=False, custom_objects=own)
        except Exception as error:  # noqa: BLE001 - whatever a class of the user's did
            problem = " ".join(str(error).split())[:300]
            return needed, f"Keras cannot load it again: {problem}"
        same = [weight.shape for weight in loaded.weights] == [w.shape for w in model.weights]
        return needed, None if same else "loaded again it has other weights: see get_config"
