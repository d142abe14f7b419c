"""A real browser without a screen, and a study that stands still for it to look at."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fakes
import image_files

from study.running.driver import Observers
from study.running.launch import ExecutionOptions, launch
from study.running.prepare import prepare
from study.space.settings import Setting
from study.storage.location import Database
from study.training.run import Epoch, Run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
"""The browser, where the machine has one."""

ROOT = Path(__file__).parents[1]


def _chromium(folder: Path, *words: str) -> str:
    """Have the browser open a page and end; returns what it printed."""
    assert CHROMIUM is not None
    options = (
        "--headless=new",
        "--no-sandbox",  # which root cannot have; the pages are our own
        "--disable-gpu",
        "--hide-scrollbars",
        "--force-device-scale-factor=1",
        "--virtual-time-budget=20000",  # milliseconds of the page's own clock
        f"--user-data-dir={folder / 'browser'}",
    )
    with subprocess.Popen(
        [CHROMIUM, *options, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            return process.communicate(timeout=120)[0]
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def opened(folder: Path, address: str) -> str:
    """The page as it is once its scripts have run, as HTML."""
    return _chromium(folder, "--dump-dom", address)


def photograph(
    folder: Path, address: str, name: str, *, dark: bool = False, tall: int = 1400
) -> Path:
    """A picture of the page, in the folder that ``BROWSER_PICTURES`` names, if it does."""
    pictures = Path(os.environ.get("BROWSER_PICTURES", folder))
    path = pictures / f"{name}.png"
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    _chromium(folder, *scheme, f"--window-size=1200,{tall}", f"--screenshot={path}", address)
    return path


def words(page: str) -> str:
    """The text of a page in one line."""
    page = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


@contextmanager
def running(folder: Path, still_at: int) -> Iterator[str]:
    """A study with a fake trainer that holds still in its run ``still_at``; yields its database."""
    (folder / "fake.toml").write_text(fakes.SPACE)
    data = image_files.npz(
        folder, x_train=image_files.pictures(shape=(12, 12)), x_test=None, y_test=None
    )
    url = f"sqlite:///{folder / 'study.db'}"
    reached, released = threading.Event(), threading.Event()
    begun: list[Run] = []

    def train(run: Run, *_: Any, **__: Any) -> Generator[Epoch, None, bytes]:
        begun.append(run)
        if len(begun) == still_at:
            reached.set()
            released.wait()
        return (yield from fakes.train(run))

    given = {"data": Setting(data, "command line")}
    prepared = prepare(str(folder / "fake.toml"), None, Database.at(url), given)
    thread = threading.Thread(
        target=launch,
        args=(prepared, Observers(), ExecutionOptions(jobs=1), print, train),
        daemon=True,
    )
    thread.start()
    try:
        assert reached.wait(60)
        yield url
    finally:
        released.set()
        thread.join(60)


@contextmanager
def dashboard(url: str) -> Iterator[str]:
    """The command `dashboard` at work; yields its address."""
    with subprocess.Popen(
        [sys.executable, "-m", "study", "dashboard", "--port", "0", "--storage", url],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found is not None
            yield found[0]
        finally:
            process.terminate()
