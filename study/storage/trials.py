"""Stored trials: what Optuna's database holds, validated, as frozen `StoredTrial`s.

Everything else reads these. A database may have been changed by another program or damaged:
any other content than this program stores is a ``StorageError`` of one line that names the trial.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, NotRequired

from optuna.exceptions import StorageInternalError
from optuna.storages._rdb.models import NOT_FOUND_MSG
from optuna.trial import TrialState
from pydantic import ConfigDict, Field, StrictInt, StrictStr, TypeAdapter, ValidationError
from sqlalchemy.exc import SQLAlchemyError
from typing_extensions import TypedDict

from study.errors import StorageError, StudyError
from study.plan.plan import RunSpec
from study.plan.results import Configuration, State, StoredTrial, configuration
from study.space.growth import contains
from study.space.keys import Number, Scalar
from study.space.metric import LARGEST

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

    from study.space.search_space import SearchSpace

RUN_SPEC = "study:run"
"""The system attribute of a trial that holds its run spec; it is written before anything else."""

STATES: dict[str, State] = {
    "WAITING": "running",
    "RUNNING": "running",
    "COMPLETE": "complete",
    "PRUNED": "pruned",
    "FAIL": "failed",
}

_Count = Annotated[StrictInt, Field(ge=0, lt=2**31)]
_Params = dict[StrictStr, Scalar]


class _Spec(TypedDict):
    """A run spec as JSON; other keys say who wrote it and why."""

    stage: StrictStr
    option: Scalar | None
    params: _Params
    repeat: _Count
    reference: _Params | None
    epochs: NotRequired[Annotated[StrictInt, Field(ge=1, lt=2**31)] | None]
    metric: NotRequired[StrictStr]


class _Deaths(TypedDict):
    epoch: _Count
    times: _Count


class _Attributes(TypedDict, total=False):
    """The attributes of a trial that this program reads; a user may have set others."""

    __pydantic_config__ = ConfigDict(extra="allow", strict=True)  # type: ignore[misc]

    curve: dict[StrictStr, list[float]]
    device: StrictStr
    failure: StrictStr
    cancelled: StrictStr
    paused: StrictStr
    seconds: Number
    parameters: Number
    size: Number
    milliseconds: Number
    milliseconds_error: Number
    best_epoch: _Count
    driver_deaths: _Deaths


_SPEC = TypeAdapter(_Spec)
_ATTRIBUTES = TypeAdapter(_Attributes)


class StoredTrials:
    """The trials of a study, read again at each call; only those that changed are converted.

    Runs on another kind of device than the first one's are left out: they cannot be paired.
    """

    def __init__(self) -> None:
        self._source: tuple[BaseStorage, int] | None = None
        self._name = ""
        self._finished: dict[int, StoredTrial] = {}
        self._running: dict[int, tuple[FrozenTrial, StoredTrial | None]] = {}
        self._configurations: dict[Configuration, Configuration] = {}

    def __call__(self, study: Study) -> list[StoredTrial]:
        return self.counted(study, self.all(study))

    def counted(self, study: Study, trials: Sequence[StoredTrial]) -> list[StoredTrial]:
        """Of all ``trials`` of a study those that count."""
        kinds = {None, next((trial.device for trial in trials if trial.device), None)}
        return [trial for trial in trials if trial.device in kinds]

    def all(self, study: Study) -> list[StoredTrial]:
        """Every trial that was a run; raises ``StorageError``."""
        # From the storage: Hyperband hands samplers a study that hides other brackets' trials.
        storage, study_id = source = (study._storage, study._study_id)
        with readable(lambda: self._name):
            if source != self._source:
                self._source, self._finished, self._running = source, {}, {}
                self._name = storage.get_study_name_from_id(study_id)
            stored = storage.get_all_trials(study_id, deepcopy=False)
            known = self._finished
            trials = [known.get(trial._trial_id) or self._converted(trial) for trial in stored]
        return [trial for trial in trials if trial]

    def _converted(self, trial: FrozenTrial) -> StoredTrial | None:
        before, current = self._running.pop(trial._trial_id, (None, None))
        if before is not trial:
            current = stored_trial(trial)
            if current:
                # Equal configurations as one object: looking one up compares them all the time.
                one = self._configurations.setdefault(current.configuration, current.configuration)
                current = replace(current, configuration=one)
        if current and trial.state.is_finished():
            self._finished[trial._trial_id] = current
        else:
            self._running[trial._trial_id] = trial, current
        return current


def inside(trials: Sequence[StoredTrial], space: SearchSpace) -> list[StoredTrial]:
    """Those of the trials whose configurations are in the space."""
    known: dict[Configuration, bool] = {}
    for trial in trials:
        if trial.configuration not in known:
            known[trial.configuration] = contains(space, trial.params)
    return [trial for trial in trials if known[trial.configuration]]


def stored_trial(trial: FrozenTrial) -> StoredTrial | None:
    """The trial as this program reads it; None for a trial that never received a run spec.

    Raises ``ValueError`` naming the trial where something in it is malformed.
    """
    try:
        spec = run_spec(trial.system_attrs)
        attributes = _attributes(trial)
        mistake = _mistake(trial)
    except ValidationError as error:
        mistake = reason(error)
    if mistake:
        raise ValueError(f"trial {trial.number}: {mistake}")
    if spec is None:
        return None
    steps = trial.intermediate_values
    reported = tuple([steps[step] for step in sorted(steps)])
    curve = attributes.get("curve", {})
    metric = trial.system_attrs[RUN_SPEC].get("metric")
    if curve and metric:  # which is stored as the trial's reports alone
        curve = {metric: reported, **curve}
    state = STATES[trial.state.name]
    if state == "running" and len(steps) >= (spec.epochs or math.inf):
        state = "paused"
    return StoredTrial(
        number=trial.number,
        trial_id=trial._trial_id,
        state=state,
        stage=spec.stage,
        option=spec.option,
        configuration=spec.configuration or (),
        repeat=spec.repeat,
        reference=spec.reference,
        until=spec.epochs,
        value=trial.value if state == "complete" else None,
        reported=reported,
        curve=curve,
        attributes=attributes,
        started=trial.datetime_start,
        ended=trial.datetime_complete,
    )


def _mistake(trial: FrozenTrial) -> str | None:
    """What Optuna has read of a trial although it cannot be."""
    if not 0 <= trial.number < 2**31:
        return "its number is impossible"
    if trial.state.is_finished() and trial.datetime_complete is None:
        return "it is finished and has no end"
    if trial.state == TrialState.COMPLETE and not trial.values:
        return "it is complete and has no value"
    if any(isinstance(value, float) and abs(value) > LARGEST for value in trial.values or ()):
        return "its value is too large"
    values = (*(trial.values or ()), *trial.intermediate_values.values())
    if not all(isinstance(value, float) for value in values):
        return "a value of it is not a number"
    return None


def run_spec(system_attributes: Mapping[str, Any]) -> RunSpec | None:
    """The run spec among a trial's system attributes, or None; ``ValueError`` if malformed."""
    if RUN_SPEC not in system_attributes:
        return None
    spec: Any = _SPEC.validate_python(system_attributes[RUN_SPEC])
    reference = spec["reference"]
    return RunSpec(
        spec["stage"],
        spec["option"],
        configuration(spec["params"]),
        spec["repeat"],
        None if reference is None else configuration(reference),
        spec.get("epochs"),
    )


@contextmanager
def readable(name: Callable[[], str]) -> Iterator[None]:
    """Raise ``StorageError`` where what is stored of the study ``name`` is not readable.

    Optuna reads a database without checking it, and may raise anything; errors of the connection
    and of this program pass.
    """
    try:
        yield
    except (StudyError, SQLAlchemyError, StorageInternalError):
        raise
    except Exception as error:  # noqa: BLE001 - Optuna may raise anything for a malformed database
        if error.args == (NOT_FOUND_MSG,):
            raise StorageError(
                f"study {name()!r} is no longer in the database: it was deleted or renamed"
            ) from None
        raise StorageError(
            f"study {name()!r}: is malformed in the database ({reason(error)}); restore a copy of "
            "the database, or use another --name"
        ) from None


def reason(error: Exception) -> str:
    """Why something stored was refused, in one line."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "run spec"
        return f"{where}: {first['msg']}"
    lines = str(error).splitlines()
    return lines[0] if isinstance(error, ValueError) and lines else type(error).__name__


def _attributes(trial: FrozenTrial) -> Mapping[str, Any]:
    """The user's attributes; of a trial whose objective raised, with what Optuna says of that."""
    attributes = _ATTRIBUTES.validate_python(trial.user_attrs)
    raised = trial.system_attrs.get("fail_reason")
    if raised is None or "failure" in attributes:
        return attributes
    return {**attributes, "failure": " ".join(str(raised).split())}
