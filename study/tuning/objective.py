"""The objective: a trial's parameters, its training run, and the value it is judged by.

For plain Optuna code; the program itself puts the same pieces together in its driver::

    space, data = study.load_space("digits"), study.load_data("digits")
    optuna_study = optuna.create_study(
        direction="maximize",
        sampler=study.OneAtATimeSampler(space),
        pruner=study.SweepPruner(),
    )
    optuna_study.optimize(study.Objective(space, data))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.exceptions import TrialPruned

from study.errors import ModelError, SettingsError, SpaceError, TrainingFailed
from study.space.file import load
from study.space.model_source import ModelSource
from study.space.search_space import SearchSpace, Validation, Value
from study.space.settings import SEED, validation_of
from study.storage.ledger import summary
from study.storage.trials import run_spec
from study.training import recipe, user_code
from study.training.run import Epoch, Run, batch_size_of
from study.training.train import start_tensorflow, train

if TYPE_CHECKING:
    from optuna.trial import Trial

    from study.data.dataset import Dataset


class Objective:
    """Trains one run of the configuration that a trial suggests; its value is the space's metric.

    The value (of an accuracy a fraction) is what the space's ``score`` makes of the last epochs, or
    with ``restore_best_weights`` that of the best one. Every epoch is reported; its other series
    and the best epoch are attributes of the trial. ``training`` is "fast" or "stock", as in
    ``Run``; ``seed`` and ``validation`` default to what the command line takes for the same space
    and data; ``device`` is "cpu" or "gpu", one for all trials of a study.

    ``space`` is one, or the path of its file; a ``model`` that the file names is run. ``model`` is
    a function in its place: ``build(params, input_shape, num_classes)`` gives a Keras model, and
    reads of ``params`` what the space has. Before the first run a network of each option is built:
    ``SpaceError`` where one cannot be, or where a hyperparameter is never read. Also raises
    ``TrainingFailed``, ``optuna.TrialPruned``, and ``SettingsError`` for another device.
    """

    def __init__(
        self,
        space: SearchSpace | str | Path,
        dataset: Dataset,
        *,
        model: Callable[..., Any] | None = None,
        seed: int | None = None,
        validation: Validation | None = None,
        threads: int = 1,
        training: str = "fast",
        device: str = "cpu",
    ) -> None:
        self.space = space if isinstance(space, SearchSpace) else load(space)
        self.model = user_code.given(model) if model else _source(space, self.space)
        self.dataset = dataset
        default_seed = SEED if self.space.seed is None else self.space.seed
        self.seed = default_seed if seed is None else seed
        self.validation = validation or validation_of(self.space, dataset.source)[0]
        self.threads = threads
        self.training = training
        self.device = device
        self._network_tried = self.model is None

    def __call__(self, trial: Trial) -> float:
        begun = (other.user_attrs.get("device") for other in trial.study.get_trials(deepcopy=False))
        if not {*begun} <= {None, self.device}:  # a waiting trial, or another program's, has None
            raise SettingsError(
                f"device={self.device!r}: this study began on another kind of device, and its runs "
                "are compared with each other: keep to that, or make a study of its own"
            )
        trial.set_user_attr("device", self.device)
        params = self.space.suggest(trial)
        start_tensorflow(self.threads, self.device)
        self._try_network()
        from study.tuning.callback import ReportAndPrune

        metric = self.space.metric
        callback = ReportAndPrune(trial, metric.name)
        try:
            epochs = list(train(self._run(trial, params), self.dataset, callbacks=[callback]))
        except TrainingFailed as failure:
            trial.set_user_attr("failure", str(failure))
            raise
        except KeyboardInterrupt:  # Optuna makes it a failed trial, which would count as one
            trial.set_user_attr("cancelled", "interrupted")
            raise
        curve = curve_of(epochs)
        values = [epoch.logs()[metric.name] for epoch in epochs]
        others = {name: one for name, one in curve.items() if name != metric.name}
        for name, one in {"curve": others, **summary(curve, metric)}.items():
            trial.set_user_attr(name, one)
        if callback.pruned:
            raise TrialPruned(f"too far behind at epoch {len(epochs)}")
        return recipe.value(params, values, metric, self.space.score)

    def _try_network(self) -> None:
        """Build the custom model with each option, once; raises ``SpaceError``."""
        if self._network_tried:
            return
        from study.training.probe import tried

        assert self.model is not None
        data = self.dataset.input_shape, self.dataset.num_classes
        try:
            tried(self.model, self.space.each_alone(), *data, self.space.metric)
        except ModelError as error:
            raise SpaceError(str(error)) from None
        self._network_tried = True

    def _run(self, trial: Trial, params: Mapping[str, Value]) -> Run:
        spec = run_spec(trial.storage.get_trial_system_attrs(trial._trial_id))
        repeat = spec.repeat if spec else 0
        return Run(
            params=tuple(params.items()),
            repeat=repeat,
            seed=self.seed,
            epochs=self.space.epochs,
            batch_size=batch_size_of(params, self.space.batch_size),
            validation=self.validation,
            threads=self.threads,
            training=self.training,
            device=self.device,
            model=self.model,
            data_fingerprint=self.dataset.fingerprint,
            metric=self.space.metric,
            limits=self.space.limits if repeat == 0 else None,
        )


def _source(space: SearchSpace | str | Path, loaded: SearchSpace) -> ModelSource | None:
    """The custom model that a space names; None if it names none."""
    if loaded.model is None:
        return None
    if isinstance(space, SearchSpace):
        raise SpaceError(
            f"model: the path of {loaded.model} counts from the file of its space: give Objective "
            "the path of that file, or the function as model=build"
        )
    return ModelSource.read(loaded.model, Path(space).parent, str(space), loaded.files or ())


def curve_of(epochs: Sequence[Epoch]) -> dict[str, list[float]]:
    """Every series of a run, by name."""
    records = [epoch.series() for epoch in epochs]
    return {name: [record[name] for record in records] for name in records[0]}
