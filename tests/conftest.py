"""What every test relies on."""

import os
import signal
import sys
from pathlib import Path

import pytest

# As the program does, before NumPy is loaded: on a race's small matrices threads mostly wait.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A shell's background jobs ignore Ctrl-C, and so would every command that a test starts and stops.
signal.signal(signal.SIGINT, signal.default_int_handler)

# As in an environment that is activated: hints then say `python`.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

# JAX, once a test imports it, sets 1 for every command started later; the program would set 3.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(autouse=True)
def _one_thread(request: pytest.FixtureRequest) -> None:
    """TensorFlow's threads are set once a process: before the first test that uses it."""
    if request.node.get_closest_marker("tensorflow"):
        from study.training.train import start_tensorflow

        start_tensorflow(1)
