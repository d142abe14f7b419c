"""What can go wrong, as a tree; every message is one line that says what to do.

Exception
├── StudyError            ends the command with exit code 2
│   ├── SpaceError        a search-space file that cannot be used
│   │   └── ParameterError    a parameter that the network cannot have
│   ├── DataError         a dataset that cannot be read, or is too small to split
│   ├── SettingsError     options that contradict each other or the stored study
│   ├── StorageError      the database cannot be opened, read or written
│   │   └── StudyLocked   another process drives this study
│   ├── PlanExhausted     more trials were asked for than the plan has
│   ├── ModelError        a final model cannot be made, read or used
│   ├── MirrorError       the MLflow server or MFlux cannot be used as asked
│   ├── ReportError       the report cannot be written where it was asked for
│   └── Unfinished        done, except for what the message names: exit code 1
└── TrainingFailed        one run failed; recorded in its trial, the study continues
"""


class StudyError(Exception):
    """A message for the user: one line, what is wrong, where, and what to do."""

    exit_code = 2


class SpaceError(StudyError, ValueError):
    """A search space, or one of its parameters, is not usable."""


class ParameterError(SpaceError):
    """A parameter, named first in the message, is unknown to the network or has a bad value."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name = name

    def __str__(self) -> str:
        return " ".join(self.args)


class DataError(StudyError):
    """A dataset cannot be read, or cannot be split as asked."""


class SettingsError(StudyError, ValueError):
    """Options contradict each other, or what the study has recorded."""


class StorageError(StudyError):
    """The study's database cannot be opened, read or written."""


class StudyLocked(StorageError):
    """Another process drives the study."""


class PlanExhausted(StudyError):
    """More trials were asked for than the plan has."""


class ModelError(StudyError):
    """A final model, or an image for it, cannot be made, read or used."""


class MirrorError(StudyError):
    """The MLflow server or MFlux cannot be used as asked."""


class ReportError(StudyError):
    """The folder of a report cannot be written."""


class Unfinished(StudyError):
    """The command is done, except for a part that the message names."""

    exit_code = 1


class TrainingFailed(Exception):
    """One training run failed; the message is the reason that its trial records."""
