"""Workers are forked from a process that has imported everything, and has no thread but one."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from study.workers import forkserver as forks

pytestmark = pytest.mark.skipif(not forks.FORKS, reason="workers are not forked on this system")


def looked_around(answers: Any) -> None:
    """What a forked process finds."""
    answers.put(
        {
            "imported": {"tensorflow", "keras", "study.workers.cluster"} <= sys.modules.keys(),
            "threads": len(list(Path(f"/proc/{os.getppid()}/task").iterdir())),
            "environment": {name: os.environ.get(name) for name in forks.ENVIRONMENT},
            "hidden": [name for name, module in sys.modules.items() if module is None],
            "deaf": signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        }
    )


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    forks.start()
    forks.start()  # the second time does nothing
    forks.wait()
    context = multiprocessing.get_context("forkserver")
    answers = context.SimpleQueue()
    process = context.Process(target=looked_around, args=(answers,))
    process.start()
    answer = answers.get()
    process.join()
    return answer


def test_a_worker_begins_with_everything_imported(found: dict[str, Any]) -> None:
    assert found["imported"]
    assert found["hidden"] == []


def test_the_process_that_is_forked_has_one_thread(found: dict[str, Any]) -> None:
    assert found["threads"] == 1


def test_a_worker_keeps_freed_memory_and_hears_no_ctrl_c(found: dict[str, Any]) -> None:
    assert found["environment"] == forks.ENVIRONMENT
    assert found["deaf"]


def test_a_driver_that_is_killed_leaves_no_message_on_the_terminal() -> None:
    program = (
        "import multiprocessing, os, signal; from study.workers import forkserver;"
        "forkserver.start();"
        "lock = multiprocessing.get_context('forkserver').Lock();"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, check=False, capture_output=True, timeout=120)
    assert ended.returncode == -signal.SIGKILL
    assert ended.stderr == b""


def test_the_driver_s_own_environment_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    before = dict(os.environ)
    forks.start()
    assert dict(os.environ) == before
