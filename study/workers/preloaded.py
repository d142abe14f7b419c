"""Imported for its effect, by the process that workers are forked from: all that they need.

Nothing of a worker is meant for the screen; what it has to say comes as events. So whoever waits
for the end of the driver's output need not wait for the end of an import.
"""

import os
import sys

_nowhere = os.open(os.devnull, os.O_WRONLY)
for _output in (1, 2):
    os.dup2(_nowhere, _output)

# Keras and scikit-learn import these where they find them, for what a worker never does: it costs
# a quarter of the time, and pandas' pyarrow starts a thread.
_UNUSED = ("matplotlib", "pandas", "pyarrow")
sys.modules.update(dict.fromkeys(_UNUSED))  # type: ignore[arg-type]

import sklearn.model_selection  # noqa: E402, F401 - splits the data of a run

import study.training.startup  # noqa: E402
import study.workers.cluster  # noqa: E402

study.training.startup.import_tensorflow()

for _name in _UNUSED:
    del sys.modules[_name]
