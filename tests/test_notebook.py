"""The shipped notebook runs, its outputs can be seen and read, and an interrupt loses nothing."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from typing import Any

import browser
import nbformat
import pytest
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "examples" / "digits.ipynb"
IMAGE = re.compile(r'<img alt="([^"]*)" src="data:image/png;base64,([^"]*)">')

pytestmark = [
    # What Jupyter's libraries warn of is not ours to mend.
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(900),
]


@pytest.fixture(autouse=True)
def checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel imports this checkout."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")


def cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(cell: Any) -> list[str]:
    """The kind of each output; what TensorFlow says of the machine is left out."""
    return [one.output_type for one in cell.outputs if one.get("name") != "stderr"]


def pages(notebook: Any) -> list[str]:
    """The HTML of every output."""
    return [
        output.data["text/html"]
        for cell in cells(notebook)
        for output in cell.outputs
        if "text/html" in output.get("data", {})
    ]


def pictures(notebook: Any) -> list[str]:
    """The description of every picture."""
    return [alt for page in pages(notebook) for alt, _ in IMAGE.findall(page)]


@pytest.fixture(scope="module")
def shipped() -> Any:
    return nbformat.read(SHIPPED, 4)


def test_the_shipped_notebook_has_the_outputs_of_one_session_without_errors(shipped: Any) -> None:
    nbformat.validate(shipped)
    counts = [cell.execution_count for cell in cells(shipped)]
    assert counts == list(range(1, len(counts) + 1))
    every = {kind for cell in cells(shipped) for kind in kinds(cell)}
    assert every <= {"display_data", "execute_result", "stream"}
    text = SHIPPED.read_text("utf-8")
    assert len(text) < 1_500_000
    assert not re.search(r"/(root|home|tmp|work|Users)/", text)


def test_every_picture_of_the_shipped_notebook_is_described(shipped: Any) -> None:
    found = pictures(shipped)
    assert len(found) >= 5
    assert all(found)
    assert "".join(pages(shipped)).count("<img") == len(found)


@pytest.mark.slow
@pytest.mark.skipif(browser.CHROMIUM is None, reason="there is no Chromium")
def test_a_browser_shows_every_picture_of_the_shipped_notebook(
    shipped: Any, tmp_path: Path
) -> None:
    script = (
        "<script>onload = () => { for (const image of document.images) { const size = "
        "document.createElement('i'); size.textContent = `${image.naturalWidth}x"
        "${image.naturalHeight}`; document.body.append(size) } }</script>"
    )
    page = tmp_path / "page.html"
    page.write_text("<meta charset=utf-8>" + "".join(pages(shipped)) + script, "utf-8")
    shown = re.findall(r"<i>(\d+)x(\d+)</i>", browser.opened(tmp_path, page.as_uri()))
    assert len(shown) == len(pictures(shipped))
    assert all(int(width) > 600 and int(height) > 100 for width, height in shown)
    browser.photograph(tmp_path, page.as_uri(), "notebook", tall=6000)


@pytest.mark.slow
def test_the_shipped_notebook_runs_as_it_is(shipped: Any, tmp_path: Path) -> None:
    fresh = nbformat.read(SHIPPED, 4)
    for cell in cells(fresh):
        cell.outputs, cell.execution_count = [], None
    NotebookClient(fresh, timeout=800, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert pictures(fresh)
    for before, now in zip(cells(shipped), cells(fresh), strict=True):
        assert kinds(before) == kinds(now)
    (progress,) = cells(fresh)[0].outputs
    assert "<table>" in progress.data["text/html"]


class Kernel:
    """A kernel of Jupyter in a folder."""

    def __init__(self, folder: Path) -> None:
        self.manager, self._client = start_new_kernel(
            kernel_name="python3", cwd=str(folder), startup_timeout=300
        )

    def close(self) -> None:
        self._client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def start(self, code: str) -> Iterator[dict[str, Any]]:
        """Run a cell; yields its messages, the reply last."""
        sent = self._client.execute(code)
        while True:
            try:
                message = self._client.get_iopub_msg(timeout=1)
            except Empty:
                continue
            if message["parent_header"].get("msg_id") != sent:
                continue
            yield message
            if message["content"].get("execution_state") == "idle":
                break
        while message["msg_type"] != "execute_reply" or message["parent_header"]["msg_id"] != sent:
            message = self._client.get_shell_msg(timeout=60)
        yield message

    def printed(self, code: str) -> str:
        """What a cell prints; it must not fail."""
        *messages, reply = self.start(code)
        assert reply["content"]["status"] == "ok", reply["content"]
        streams = [one["content"] for one in messages if one["msg_type"] == "stream"]
        return "".join(one["text"] for one in streams if one["name"] == "stdout")


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    made = Kernel(tmp_path)
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupted_cell_leaves_a_study_that_the_same_cell_continues(
    kernel: Kernel, jobs: int
) -> None:
    kernel.printed("import asyncio, psutil, study; asyncio.get_running_loop()")
    cell = f"result = study.run('smoke', epochs=2, jobs={jobs})"
    shown, reply = set(), {}
    for message in kernel.start(cell):
        reply = message["content"]
        html = reply.get("data", {}).get("text/html", "")
        shown |= {message["msg_type"]} if html else set()
        if re.search(r"epoch 1 of 2, \d", html):
            kernel.manager.interrupt_kernel()
    assert (reply["status"], reply["ename"]) == ("error", "KeyboardInterrupt")
    assert shown == {"display_data", "update_display_data"}
    assert kernel.printed("print(study.load('smoke').state)") == "interrupted\n"
    assert kernel.printed("print(psutil.Process().children())") == "[]\n"

    assert kernel.printed(cell) == ""
    told = kernel.printed("print(result.state, set(result.trials()['state']) - {'pruned'})")
    assert told == "complete {'complete'}\n"


@pytest.mark.slow
def test_a_mistake_in_a_cell_is_one_line_and_leaves_no_process(kernel: Kernel) -> None:
    kernel.printed("import psutil, study")
    *_, reply = kernel.start("study.run('smoke', model=lambda params, shape, classes: None)")
    assert reply["content"]["ename"] == "SpaceError"
    assert reply["content"]["evalue"].startswith("model: a lambda cannot travel to the workers")
    *_, reply = kernel.start("study.run('smoke', data=([[[0.5]]] * 9, [0.5] * 9))")
    assert reply["content"]["ename"] == "DataError"
    assert kernel.printed("print(psutil.Process().children())") == "[]\n"


def test_the_kernel_is_the_python_of_the_tests(kernel: Kernel) -> None:
    assert kernel.printed("import sys; print(sys.executable)").strip() == sys.executable
