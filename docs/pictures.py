"""The README's pictures, made of a real study: make pictures.

Needs Chromium; takes some minutes. Beside the pictures lies `shown.json`: fingerprints of what the
program shows of the same study with made-up numbers. A test compares them, so no picture of
what has changed since stays.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import browser  # of the tests, as are the fakes
import fakes
from PIL import Image
from rich.console import Console

from study.cli.live import Screen
from study.cli.summary import print_execution, print_header
from study.dashboard.note import note_text
from study.final import gallery
from study.plan.plan import PlanState
from study.report.write import report
from study.running.launch import ExecutionOptions, launch
from study.running.prepare import Prepared, prepare
from study.space.settings import Setting
from study.storage.ledger import ActiveRun
from study.storage.location import Database
from study.text.sentences import scoring
from study.workers.engine import EpochReported, Event

ROOT = Path(__file__).parents[1]
HERE = ROOT / "docs" / "pictures"
GIVEN = {"epochs": 5, "repeats": 2}  # of the space digits
WIDTH = 92  # columns of the terminal


class Moment(Screen):
    """The live view, and what it was at the last moment that has much to see.

    That is while the second stage is open, has results already, and every worker is busy.
    """

    def __init__(self, prepared: Prepared, execution: ExecutionOptions) -> None:
        console = Console(file=io.StringIO(), width=WIDTH)  # for a screen that is never started
        super().__init__(console, prepared.settings["epochs"], prepared.settings.repeats)
        self._prepared, self._execution = prepared, execution
        self.svg = self.text = ""

    def see(
        self, plan_state: PlanState, active: Mapping[int, ActiveRun], event: Event | None
    ) -> None:
        super().see(plan_state, active, event)
        stage = plan_state.stages[-1]
        busy = len(active) == self._execution.jobs and all(run.stored for run in active.values())
        begun = len(plan_state.stages) == 2 and any(option.values for option in stage.options)
        if isinstance(event, EpochReported) and busy and begun and not stage.decided:
            self._take()

    def _take(self) -> None:
        to = Console(file=io.StringIO(), width=WIDTH, record=True, force_terminal=True)
        options = " ".join(f"--{name} {value}" for name, value in GIVEN.items())
        to.print(f"$ study run digits {options} --mlflow none", highlight=False)
        head = Console(file=io.StringIO(), width=WIDTH)  # prints long lines, which a terminal wraps
        print_header(head, self._prepared.location.name, self._prepared.settings, new=True)
        jobs = self._execution.jobs or 1
        print_execution(head, jobs, self._execution, self._prepared.settings)
        to.print(head.file.getvalue().rstrip(), highlight=False, markup=False)
        to.print(self)
        self.text = to.export_text(clear=False)
        self.svg = to.export_svg(title="study", unique_id="study")


def given() -> dict[str, Setting]:
    """The options of the study, as the command line gives them."""
    return {name: Setting(value, "command line") for name, value in GIVEN.items()}


def shown() -> dict[str, str]:
    """A fingerprint for each picture, of what the present program shows of a made-up study."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database.at(f"sqlite:///{folder}/study.db")
        prepared = prepare("digits", None, database, given())
        execution = ExecutionOptions(jobs=1)
        moment = Moment(prepared, execution)
        plan_state = launch(
            prepared, moment, execution, print, lambda run, *_, **__: fakes.train(run)
        )
        page = report(database, "digits", f"{folder}/report").read_text(encoding="utf-8")
        database.close()
    head = re.sub(r"<svg.*?</svg>", "", page.split('<section aria-labelledby="stages">')[0])
    texts = {
        "terminal.svg": re.sub(r"[\d.]+ (s|min|h) left", "left", moment.text),
        "report.png": head,
        "dashboard.png": note_text(plan_state, 2, None, scoring(prepared.settings)),
        "gallery.png": inspect.getsource(gallery._drawn),
    }
    return {name: _fingerprint(text) for name, text in texts.items()}


def _fingerprint(text: str) -> str:
    """Of the words of a text: its numbers are left out, and how it is spread over lines."""
    words = " ".join(re.sub(r"\d[\d.]*", "#", text).split())
    return hashlib.sha256(words.encode()).hexdigest()


def make(folder: Path) -> None:
    """Run a study in an empty folder and put its pictures where the README has them."""
    database = Database.at(f"sqlite:///{folder}/study.db")
    prepared = prepare("digits", None, database, given())
    execution = ExecutionOptions(jobs=2)
    moment = Moment(prepared, execution)
    launch(prepared, moment, execution, print)
    database.close()
    assert moment.svg, "no moment had enough to see: once more"
    (HERE / "terminal.svg").write_text(moment.svg, encoding="utf-8")

    for words in ("report", "finalize --mlflow none", f"gallery --output {folder}"):
        _command(folder, *words.split())
    _photograph(folder, (folder / "digits-report" / "report.html").as_uri(), "report", 1000)
    with browser.dashboard(f"sqlite:///{folder}/study.db") as address:
        _photograph(folder, f"{address}/dashboard/studies/1/note", "dashboard", 900)
    _small(Image.open(folder / "gallery.png"), "gallery")
    text = json.dumps(shown(), indent=2) + "\n"
    (HERE / "shown.json").write_text(text, encoding="utf-8")


def _command(folder: Path, *words: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(  # noqa: S603 - our own commands
        [sys.executable, "-m", "study", *words], cwd=folder, env=environment, check=True
    )


def _photograph(folder: Path, address: str, name: str, tall: int) -> None:
    _small(Image.open(browser.photograph(folder, address, name, tall=tall)), name)


def _small(picture: Image.Image, name: str) -> None:
    """Write a picture of 256 colours: a third of the size, and the eye sees no other."""
    picture.convert("RGB").quantize(256).save(HERE / f"{name}.png", optimize=True)


if __name__ == "__main__":
    if browser.CHROMIUM is None:
        sys.exit("pictures: there is no Chromium; apt install chromium")
    with tempfile.TemporaryDirectory() as folder_:
        make(Path(folder_))
    sys.stdout.write(f"Written: {HERE}\n")
