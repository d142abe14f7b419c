"""TensorFlow is imported without its greetings, and always with the same settings.

It stands in this room as the lowest of those that import it: MNIST comes through Keras.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def imported_quietly() -> Iterator[None]:
    """Import TensorFlow in this, and nothing is printed unless that fails.

    Its libraries greet while they are loaded, before they can be told to be quiet.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow leaves oneDNN off on processors without AVX-512; there it doubles the speed.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if "tensorflow" in sys.modules:
        yield
        return
    with _without_jax(), held_back():
        yield


@contextmanager
def _without_jax() -> Iterator[None]:
    """Hide JAX, which TensorFlow imports if it is installed: nothing here uses that."""
    if "jax" in sys.modules:
        yield
        return
    sys.modules["jax"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["jax"]


@contextmanager
def held_back() -> Iterator[None]:
    """Hold back the process's stderr, and write it out only if the block fails."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            yield
        except BaseException:
            os.lseek(written.fileno(), 0, os.SEEK_SET)
            os.write(stderr, written.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
