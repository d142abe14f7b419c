"""Builds and checks a custom Keras model, and the network of any run.

`build(params, input_shape, num_classes)` gives a Keras model; what it reads of `params` are its
hyperparameters.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from numpy.typing import NDArray

from study.errors import ModelError, TrainingFailed
from study.space.metric import ACCURACY, BALANCED, Metric
from study.space.model_source import ModelSource
from study.training import backbone, network
from study.training.compiled import from_bytes, judge, logs_in, takes_one_hot
from study.training.private import compile_with, seeds_drawn_from
from study.training.recipe import OURS, Recipe, check
from study.training.user_code import classes, function, why

if TYPE_CHECKING:
    from study.data.dataset import Dataset
    from study.space.search_space import Value
    from study.training.run import FineTuning, Run

_LOWER = 0.1
"""The rate of fine-tuning, as a share of the head's."""


class Noticing(Mapping[str, Any]):
    """A run's hyperparameters, which remember the names that were `read`."""

    def __init__(self, params: Mapping[str, Value]) -> None:
        self._params = params
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Value:
        self.read.add(name)
        return self._params[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._params)

    def __len__(self) -> int:
        return len(self._params)


def network_of(run: Run, dataset: Dataset) -> tuple[keras.Model, dict[str, Value]]:
    """The compiled network of a run, and its recipe.

    A custom model has the run's first weights, and one to fine-tune those of its head and its
    backbone. Raises TrainingFailed where it cannot be built.
    """
    params, data = dict(run.params), (dataset.input_shape, dataset.num_classes)
    if run.model is None:
        return network.build_cnn(params, *data), params
    try:
        if run.tuning is not None:
            built, read = _fine_tuned(run, run.model, run.tuning, dataset)
        else:
            built, read = build(run.model, params, *data, run.initial_seed(), run.metric)
    except ModelError as error:
        raise TrainingFailed(str(error)) from None
    return built, recipe_of(params, read)


def _fine_tuned(
    run: Run, source: ModelSource, tuning: FineTuning, dataset: Dataset
) -> tuple[keras.Model, set[str]]:
    """A backbone and its trained head as one model of images, and the names that the head reads.

    It is compiled as the head is, at a lower rate. Raises ModelError.
    """
    assert dataset.backbone is not None
    own = classes(source)
    frozen = from_bytes(dataset.backbone, own)
    images = keras.Input(dataset.input_shape)
    features = frozen(images, training=False)
    shape, seed = features.shape[1:], run.initial_seed()
    head, read = build(source, dict(run.params), shape, dataset.num_classes, seed, run.metric)
    for step in ("train_step", "test_step", "compute_loss", "compute_metrics"):
        if getattr(type(head), step) is not getattr(keras.Model, step):
            raise ModelError(
                f"{source.name} has its own {step}, which fine-tuning would not call: remove it, "
                "or leave --fine-tune out"
            )
    trained = head
    if tuning.head:  # not compiled: the file of the joined model has one optimizer
        with seeds_drawn_from(seed):
            trained = from_bytes(tuning.head, own)
    trained.name = "head"
    backbone.unfreeze(frozen, tuning.layers)
    joined = keras.Model(images, trained(features))
    rate = tuning.rate or _LOWER * float(head.optimizer.learning_rate)
    optimizer = head.optimizer.get_config() | {"learning_rate": rate}
    compile_with(joined, type(head.optimizer).from_config(optimizer), like=head)
    return joined, read


def build(
    source: ModelSource,
    params: Mapping[str, Value],
    input_shape: tuple[int, ...],
    num_classes: int,
    seed: int = 0,
    metric: Metric = ACCURACY,
) -> tuple[keras.Model, set[str]]:
    """A compiled model for images of `input_shape`, and the names that its function has read.

    Weights, and all that the function draws with Keras, NumPy or `random`, follow from `seed`. A
    model that is not compiled is, with Adam and cross-entropy; or where labels are numbers, which
    makes `num_classes` 1, with squared errors. It logs `metric`. Raises ModelError, in one line;
    ParameterError for a hyperparameter that is the trainer's own.
    """
    noticing = Noticing(params)
    with seeds_drawn_from(seed), redirect_stdout(io.StringIO()):  # it may print
        keras.utils.set_random_seed(seed)
        model = _built(source, noticing, input_shape, num_classes)
        _check(source, model, input_shape, num_classes, metric)
    recipe = recipe_of(params, noticing.read)
    check(recipe)
    _tune(source, model, Recipe.of(recipe))
    return model, noticing.read


def _built(
    source: ModelSource, noticing: Noticing, input_shape: tuple[int, ...], num_classes: int
) -> keras.Model:
    """The model that the function returns, which may not have weights yet."""
    try:
        model = function(source)(noticing, tuple(input_shape), num_classes)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's code
        missing = error.args[0] if isinstance(error, KeyError) and error.args else None
        if isinstance(missing, str) and missing in noticing.read and missing not in noticing:
            names = ", ".join(noticing)
            raise ModelError(
                f"{source.name} reads {missing!r}, which the space does not have; it has {names}"
            ) from None
        raise ModelError(f"{source.name}: {why(error, source)}") from None
    if not isinstance(model, keras.Model):
        raise ModelError(
            f"{source.name} gives {type(model).__name__}, not a Keras model: return the model"
        )
    return model


def recipe_of(params: Mapping[str, Value], read: set[str]) -> dict[str, Value]:
    """The hyperparameters of training, without those that the function has read."""
    return {name: value for name, value in params.items() if name in OURS and name not in read}


def _tune(source: ModelSource, model: keras.Model, recipe: Recipe) -> None:
    """Give the model the optimizer of the recipe.

    Refuses two schedules of the learning rate: the model's own, and the trainer's.
    """
    if not (recipe.scheduled or recipe.optimizer or recipe.tuned):
        return
    try:
        own = isinstance(model.optimizer.get_config().get("learning_rate"), dict)
    except NotImplementedError:  # Keras raises it for an optimizer without get_config
        own = True
    if own:
        name = "schedule" if recipe.scheduled else recipe.optimizer and "optimizer"
        name = name or next(iter(recipe.tuned))
        raise ModelError(
            f"{source.name} is compiled with a learning-rate schedule, and the space has another "
            f"{name}: take {name} out of the space, or compile the model with a number"
        )
    if recipe.optimizer or recipe.tuned:
        compile_with(model, recipe.new_optimizer(model.optimizer))


def _check(
    source: ModelSource,
    model: keras.Model,
    input_shape: tuple[int, ...],
    num_classes: int,
    metric: Metric,
) -> None:
    """Try the model on an image, which builds it; compile it where it is not."""
    image = np.zeros((1, *input_shape), np.float32)
    output = _output(source, model, image, num_classes)
    if not model.compiled:
        _compile(model, output)
    logged = _logged(source, model, image, num_classes)
    if metric.name not in logged:
        raise ModelError(
            f"{source.name} does not log {metric.name}: compile it with that metric, or give "
            f"metric = one of {', '.join(sorted(logged))}"
        )
    model.reset_metrics()


def _output(
    source: ModelSource, model: keras.Model, image: NDArray[np.float32], num_classes: int
) -> Any:
    """The model's output (1, num_classes) for an image (1, height, width, channels)."""
    try:
        output = model(image, training=False)
    except Exception as error:  # noqa: BLE001 - its layers may raise anything
        shape = "x".join(map(str, image.shape[1:]))
        inputs = f"outputs of {source.backbone}, of shape" if source.features else "images of"
        raise ModelError(
            f"{source.name} does not take {inputs} {shape}: {why(error, source)}; use input_shape"
        ) from None
    if tuple(getattr(output, "shape", ())) != (1, num_classes):
        found = getattr(output, "shape", type(output).__name__)
        raise ModelError(
            f"{source.name} gives {tuple(found) if not isinstance(found, str) else found} for one "
            f"image; it must be (1, {num_classes}), "
            + ("one number" if num_classes == 1 else "a number a class: use num_classes")
        )
    return output


def _compile(model: keras.Model, output: Any) -> None:
    """Compile with Adam and the loss that fits its ``output``: a number, probabilities, logits."""
    if output.shape[1] == 1:
        model.compile("adam", "mse", metrics=["mae"])
        return
    probabilities = bool(np.isclose(np.sum(output), 1, atol=1e-3) and np.min(output) >= 0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=not probabilities)
    model.compile("adam", loss, metrics=["accuracy"])


def _logged(
    source: ModelSource, model: keras.Model, image: NDArray[np.float32], num_classes: int
) -> list[str]:
    """The metrics of validation images that a compiled model logs, by Keras' names."""
    numbers = num_classes == 1
    try:
        label = np.zeros((1, 1) if numbers else 1, np.float32 if numbers else np.int32)
        one_hot = takes_one_hot(model) and not numbers
        wanted = keras.ops.one_hot(label, num_classes) if one_hot else label
        judge(model, image, wanted)
        logged = [f"val_{name}" for name in logs_in(model.get_metrics_result(), 1)]
    except Exception as error:  # noqa: BLE001 - its loss and metrics may raise anything
        raise ModelError(f"{source.name}: its loss or metrics fail: {why(error, source)}") from None
    return logged if numbers else [*logged, BALANCED]
