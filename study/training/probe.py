"""Builds the networks of a study once, in a separate process, before the study is created.

A model's file runs here and in workers only. Whatever it does, prints or breaks, the command that
asked says in one line what is wrong.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from study.errors import ModelError, StudyError
from study.space.metric import ACCURACY, Metric
from study.space.model_source import BackboneFacts, ModelSource, NetworkFacts
from study.space.search_space import Value

_FAINT = 1 / 64  # of the contrast that there is
_IMAGES = 8  # that are looked at
_NEVER_CALLED = {"fit", "evaluate", "make_train_function", "make_test_function", "callbacks"}


def probe(
    source: ModelSource,
    configurations: Sequence[Mapping[str, Value]],
    input_shape: tuple[int, ...],
    num_classes: int,
    metric: Metric = ACCURACY,
    *,
    library: str = "tensorflow",
) -> NetworkFacts:
    """Build a model of each configuration in a separate process.

    Raises ModelError, in one line, where the first cannot be built, where one cannot be saved or
    loaded again or sees almost no contrast, or where none reads a hyperparameter that is not the
    trainer's own. ``library`` is what Keras computes with.
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
    """Answer the question on standard input."""
    answer_to = quiet_child()
    source, configurations, input_shape, num_classes, metric, library = json.load(sys.stdin)
    goal = Metric(**metric)
    try:
        _start(library)
        given = ModelSource(**source), configurations, tuple(input_shape), num_classes
        answer = asdict(tried(*given, goal, loadable=True))
    except StudyError as error:
        answer = {"wrong": str(error)}
    os.write(answer_to, json.dumps(answer).encode())


def quiet_child() -> int:
    """Discard what this process prints, and end it with its parent; returns where to answer.

    A model's file may print, and may never end.
    """
    answer_to, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    return answer_to


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _start(library: str) -> None:
    """Start the library that will train."""
    if library != "tensorflow":
        os.environ |= {"KERAS_BACKEND": library, "JAX_PLATFORMS": "cpu"}
        sys.modules["tensorflow"] = None  # type: ignore[assignment]  # Keras would import it
    else:
        from study.training.train import start_tensorflow

        start_tensorflow(1)


def tried(
    source: ModelSource,
    configurations: Sequence[Mapping[str, Any]],
    input_shape: tuple[int, ...],
    num_classes: int,
    metric: Metric = ACCURACY,
    *,
    loadable: bool = False,
) -> NetworkFacts:
    """As `probe`, in this process, which has started what will train.

    Models that a file cannot give back are refused where they have to be ``loadable``. Where the
    first configuration can be built and another one cannot, the facts say so: its runs will fail.
    """
    from study.training.custom_model import build, recipe_of
    from study.training.recipe import Recipe

    seen: set[str] = set()
    found: list[NetworkFacts] = []
    backbone: BackboneFacts | None = None
    own: tuple[str, ...] = ()
    unbuilt: list[str] = []
    if source.features:
        backbone, own = _backbone(source, input_shape)
        input_shape = backbone.shape
    for params in configurations:
        try:
            model, read = build(source, params, input_shape, num_classes, metric=metric)
        except ModelError as error:
            if not found:
                raise
            unbuilt.append(f"with {_changed(configurations[0], params)} ({error})")
            continue
        seen |= read
        if backbone is None:
            _require_contrast(source.name, model, input_shape)
        elif Recipe.of(recipe_of(params, read)).augments:
            raise ModelError(
                "rotation, zoom and translation change images, but the outputs of "
                f"{source.backbone} are computed once: take them out of the space"
            )
        classes, problem = _saved_and_loaded(source, model)
        if problem and loadable:
            raise ModelError(f"{source.name}: no final model can be made of it: {problem}")
        found.append(NetworkFacts(model.count_params(), classes, _never_called(model)))
    _require_read(source, configurations[0], seen)
    return NetworkFacts(
        found[0].parameters,
        tuple(sorted({*own, *(name for one in found for name in one.classes)})),
        tuple(sorted({name for one in found for name in one.unused})),
        backbone,
        tuple(unbuilt),
    )


def _require_read(source: ModelSource, names: Iterable[str], seen: set[str]) -> None:
    """Refuse a function that reads what is the trainer's own, or not all of the others."""
    from study.training.recipe import OURS

    for name in seen & {"restore_best_weights", "patience"}:
        raise ModelError(f"{source.name} reads {name}, which is the trainer's own: rename it")
    for name in names:
        if name not in seen | OURS:
            raise ModelError(
                f"{source.name} does not read {name!r}: let it, or take it out of the space"
            )


def _changed(start: Mapping[str, Any], params: Mapping[str, Any]) -> str:
    """The values that are not those of the start."""
    return ", ".join(f"{name}={one}" for name, one in params.items() if start.get(name) != one)


def _backbone(
    source: ModelSource, input_shape: tuple[int, ...]
) -> tuple[BackboneFacts, tuple[str, ...]]:
    """The facts of a study's backbone, and the classes of the file that it needs."""
    from study.training import backbone

    model = backbone.built(source, input_shape)
    _require_contrast(source.backbone, model, input_shape)
    classes, problem = _saved_and_loaded(source, model)
    if problem:
        raise ModelError(f"{source.backbone}: no final model can be made of it: {problem}")
    shape = model(np.zeros((1, *input_shape), np.float32), training=False).shape[1:]
    digest = backbone.digest(model, source)
    return BackboneFacts(tuple(shape), model.count_params(), digest), classes


def _never_called(model: Any) -> tuple[str, ...]:
    """The training methods of a model of the user's class, which are never called."""
    own: set[str] = set()
    for kind in type(model).__mro__:
        if kind.__module__.startswith("keras."):
            break
        own |= vars(kind).keys()
    own |= vars(model).keys() & {"callbacks"}
    return tuple(sorted(own & _NEVER_CALLED))


def _require_contrast(called: str, model: Any, input_shape: tuple[int, ...]) -> None:
    """Refuse a model whose first layer with weights sees almost constant inputs.

    Images come within 0..1. A model that scales them as if they were 0..255 makes them almost
    constant. Its first layer's inputs are compared for images of both ranges, so it does not
    matter how they are scaled.
    """
    draws = np.random.default_rng(0)
    images = draws.random((_IMAGES, *input_shape), np.float32)
    images *= np.linspace(0.2, 1, _IMAGES, dtype=np.float32)[:, None, None, None]
    try:
        given, given_255 = (_first_inputs(model, images * scale) for scale in (1, 255))
    except Exception:  # noqa: BLE001 - it does not take images of 0..255, which is its right
        return
    for name, inputs in given.items():
        others = given_255.get(name, inputs)
        if np.array_equal(inputs, others):
            continue  # not images, but positions for example
        (spread, contrast), (spread_255, contrast_255) = map(_spread, (inputs, others))
        scaled = spread < _FAINT * images.std() and spread_255 > spread / _FAINT
        moved = contrast < _FAINT and contrast_255 > contrast / _FAINT
        if scaled or moved:
            raise ModelError(
                f"{called}: images come within 0..1, of which its layer {name} sees almost no "
                f"contrast (a spread of {spread:.2g}, {spread_255:.2g} if they came within 0..255):"
                " take out what scales them (preprocess_input, x / 255, Normalization, Rescaling), "
                "or put layers.Rescaling(255.0) before it"
            )
        return


def _first_inputs(model: Any, images: Any) -> dict[str, Any]:
    """The inputs of each layer with weights when the model sees images, in order of the calls."""
    import keras

    from study.training.private import flat_layers

    inputs: dict[str, Any] = {}

    def watch(layer: Any) -> None:
        call = layer.call

        def watched(*args: Any, **kwargs: Any) -> Any:
            given = args[0] if args else next(iter(kwargs.values()))
            if layer.name not in inputs and hasattr(given, "shape"):
                inputs[layer.name] = np.asarray(keras.ops.convert_to_numpy(given), np.float64)
            return call(*args, **kwargs)

        layer.call = watched

    watched = [
        layer
        for layer in flat_layers(model)
        if layer.weights
        and not flat_layers(layer)
        and not isinstance(layer, keras.layers.Normalization)
        and "call" not in vars(layer)
    ]
    try:
        for layer in watched:
            watch(layer)
        model(images, training=False)
    finally:
        for layer in watched:
            vars(layer).pop("call", None)
    return inputs


def _spread(inputs: Any) -> tuple[float, float]:
    """The standard deviation in a channel, and that by its root mean square: 1 where centred."""
    channels = inputs.reshape(-1, inputs.shape[-1])
    spread = float(channels.std(axis=0).mean())
    return spread, spread / (float(np.sqrt((channels**2).mean())) or 1.0)


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
        except NotImplementedError:  # Keras raises it for a layer without get_config
            raise ModelError(
                f"{source.name}: Keras cannot save it: give the class {type(model).__name__}, or "
                "the layer that is the reason, a method get_config"
            ) from None
        except Exception as error:  # noqa: BLE001 - a layer of the user may raise anything
            problem = " ".join(str(error).split())[:300]
            raise ModelError(f"{source.name}: Keras cannot save it: {problem}") from None
        described = keras_file.description(path)
        described.pop("compile_config", None)
        needed = tuple(name for name in keras_file.foreign(described) if name in own)
        if others := keras_file.foreign(described, own):
            return needed, (
                f"it holds a {others[0]}, which is not loaded from a file: make a class of the "
                "user's file of it, with a method get_config"
            )
        if not needed:
            return (), None
        try:
            loaded = keras.models.load_model(path, compile=False, custom_objects=own)
        except Exception as error:  # noqa: BLE001 - a class of the user may raise anything
            problem = " ".join(str(error).split())[:300]
            return needed, f"Keras cannot load it again: {problem}"
        same = [weight.shape for weight in loaded.weights] == [w.shape for w in model.weights]
        return needed, None if same else "loaded again it has other weights: see get_config"
