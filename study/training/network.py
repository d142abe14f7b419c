"""The network of a run, compiled, with what of the run's hyperparameters is no part of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from study.errors import ModelError, TrainingFailed
from study.training import model, own

if TYPE_CHECKING:
    import keras

    from study.data.dataset import Dataset
    from study.space.search_space import Value
    from study.training.run import Run


def network_of(run: Run, dataset: Dataset) -> tuple[keras.Model, dict[str, Value]]:
    """A network of the run and its recipe; one of the user's own has the run's first weights."""
    params, data = dict(run.params), (dataset.input_shape, dataset.num_classes)
    if run.model is None:
        return model.build_cnn(params, *data), params
    try:
        built, read = own.build(run.model, params, *data, run.initial_seed(), run.metric)
    except ModelError as error:
        raise TrainingFailed(str(error)) from None
    return built, own.recipe_of(params, read)
