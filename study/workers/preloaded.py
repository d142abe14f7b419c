"""Imported for its effect, by the process that workers are forked from: all that they need."""

import sys

# Keras and scikit-learn import these where they find them, for what a worker never does: it costs
# a quarter of the time, and pandas' pyarrow starts a thread.
_UNUSED = ("matplotlib", "pandas", "pyarrow")
sys.modules.update(dict.fromkeys(_UNUSED))  # type: ignore[arg-type]

import sklearn.model_selection  # noqa: E402, F401 - splits the data of a run

import study.training.train  # noqa: E402

study.training.train.import_tensorflow()

for _name in _UNUSED:
    del sys.modules[_name]
