"""What every test relies on."""

import pytest


@pytest.fixture(autouse=True)
def _one_thread(request: pytest.FixtureRequest) -> None:
    """TensorFlow's threads are set once a process: before the first test that uses it."""
    if request.node.get_closest_marker("tensorflow"):
        from study.training import start_tensorflow

        start_tensorflow(1)
