"""The pages as a real browser shows them: the dashboard of a running study, and the report.

Skipped where there is no Chromium. ``BROWSER_PICTURES=FOLDER`` keeps the photographs.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import browser
import optuna
import pytest
from optuna_dashboard import get_note
from PIL import Image

from study.report.write import report
from study.storage.location import Database

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        browser.CHROMIUM is None, reason="there is no Chromium: apt install chromium"
    ),
]


@dataclass(frozen=True)
class Shown:
    """A running study: its database, its dashboard, and a folder for pictures."""

    url: str
    address: str
    folder: Path

    def words(self, page: str = "") -> str:
        return browser.words(
            browser.opened(self.folder, f"{self.address}/dashboard/studies/1{page}")
        )

    def picture(self, page: str, name: str) -> Image.Image:
        path = browser.photograph(self.folder, f"{self.address}/dashboard/studies/1{page}", name)
        return Image.open(path)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """A study that holds still in its sixth run, with what four runs decided in its note."""
    folder = tmp_path_factory.mktemp("shown")
    with browser.running(folder, still_at=6) as url, browser.dashboard(url) as address:
        study = optuna.load_study(study_name="fake", storage=Database.at(url).open())
        while "after 4 runs" not in get_note(study):  # the test's own limit ends a vain wait
            time.sleep(0.5)
        yield Shown(url, address, folder)


def colours(picture: Image.Image) -> int:
    """How many colours a picture has: an empty page has one."""
    return len(picture.convert("RGB").getcolors(2**24) or [])


def test_the_study_s_note_has_its_state_and_its_tables(shown: Shown) -> None:
    said = shown.words("/note")
    assert "The study so far" in said
    assert re.search(r"4 of at most \d+ runs are done", said)
    assert "filters 2 is ahead of 1 by " in said
    assert "best mean, selected" in said
    assert "|" not in said  # tables are tables
    assert colours(shown.picture("/note", "note")) > 50


def test_a_finished_trial_has_numbers_that_sort(shown: Shown) -> None:
    said = shown.words("/trials?numbers=0")
    for name in ("stage", "repeat", "best_epoch", "parameters", "seconds"):
        assert name in said
    assert colours(shown.picture("/trials?numbers=0", "trial")) > 50


def test_the_report_is_read_in_light_and_dark(shown: Shown) -> None:
    page = report(Database.at(shown.url), "fake", shown.folder / "report")
    said = browser.words(browser.opened(shown.folder, page.as_uri()))
    assert "The answer so far" in said
    assert "Learning curves" in said
    ground = []
    for dark in (False, True):
        name = f"report-{'dark' if dark else 'light'}"
        picture = Image.open(browser.photograph(shown.folder, page.as_uri(), name, dark=dark))
        assert colours(picture) > 50
        ground.append(sum(picture.convert("RGB").getpixel((5, 5))))
    light, dark_ = ground
    assert light > 3 * 200
    assert dark_ < 3 * 60
