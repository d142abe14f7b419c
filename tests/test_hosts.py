"""docs/cluster.md, followed literally on three hosts made of Linux network namespaces.

Hosts are cut off and killed while the study runs; its answer is that of one process. The commands
are the page's own; only the trainer is a fake one, put in by `sitecustomize`.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import postgres
import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "cluster.md").read_text()
DATABASE, SECOND, THIRD = HOSTS = ("10.77.0.1", "10.77.0.2", "10.77.0.3")
PATIENCE = 120.0
FAKE = "import study.training.train as real, fake_trainer; real.train = fake_trainer.train\n"

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("ip") is None,
        reason="network namespaces need root and iproute2",
    ),
]


def block(where: str) -> str:
    """The commands of the page under a line that begins with this."""
    found = re.search(
        rf"^On {re.escape(where)}:\n\n```sh\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE
    )
    assert found, where
    return found[1]


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(done.stderr.strip())


class Hosts:
    """Three network namespaces on a bridge, and what runs in them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._begun: dict[str, list[subprocess.Popen[str]]] = {host: [] for host in HOSTS}
        self._tag = f"st{os.getpid() % 10000}"

    def build(self) -> None:
        ip("link", "add", self._tag, "type", "bridge")
        ip("link", "set", self._tag, "up")
        for number, host in enumerate(HOSTS, 1):
            ip("netns", "add", self.space(host))
            near, far = f"{self._tag}n{number}", f"{self._tag}f{number}"
            ip("link", "add", near, "type", "veth", "peer", "name", far)
            ip("link", "set", near, "master", self._tag, "up")
            ip("link", "set", far, "netns", self.space(host))
            for words in (("addr", "add", f"{host}/24", "dev", far), ("link", "set", far, "up")):
                ip("-n", self.space(host), *words)
            ip("-n", self.space(host), "link", "set", "lo", "up")

    def space(self, host: str) -> str:
        return f"{self._tag}-{host.rpartition('.')[2]}"

    def cut(self, host: str) -> None:
        """Pull the plug of the network."""
        ip("link", "set", f"{self._tag}n{host.rpartition('.')[2]}", "down")

    def start(self, host: str, script: str, user: str = "root") -> "subprocess.Popen[str]":
        """Have commands run on a host."""
        home = self.folder / f"{host}-{user}"
        home.mkdir(exist_ok=True)
        shutil.chown(home, user)
        path = [str(Path(sys.executable).parent), postgres.programs(), os.environ["PATH"]]
        environ = {
            "PATH": os.pathsep.join(path),
            "HOME": str(home),
            "STUDY_MLFLOW": "none",
            "PYTHONPATH": os.pathsep.join(
                [str(self.folder / "site"), str(ROOT), str(ROOT / "tests")]
            ),
            "FAKE_PAUSE": "0.5",
            "FAKE_TRACE": str(self.folder / "trace"),
        }
        words = ["ip", "netns", "exec", self.space(host), "setpriv", f"--reuid={user}"]
        words += ["--clear-groups", "bash", "-ec", script]
        with (self.folder / "log").open("a") as log:
            process = subprocess.Popen(
                words,
                cwd=home,
                env=environ,
                stdout=subprocess.PIPE if "best" in script else log,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self._begun[host].append(process)
        return process

    def kill(self, host: str) -> None:
        """Switch a host off: no goodbye is heard."""
        self.cut(host)
        self.end(host)

    def end(self, host: str) -> None:
        for process in self._begun.pop(host, []):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def close(self) -> None:
        for host in HOSTS:
            self.end(host)
            subprocess.run(["ip", "netns", "del", self.space(host)], check=False)
        subprocess.run(["ip", "link", "del", self._tag], check=False)

    @property
    def trace(self) -> list[list[str]]:
        file = self.folder / "trace"
        return [line.split() for line in file.read_text().splitlines()] if file.exists() else []

    def wait_for(self, epochs: int, driver: "subprocess.Popen[str]") -> None:
        """Wait until this number of epochs has been trained."""
        deadline = time.monotonic() + PATIENCE
        while len(self.trace) < epochs:
            alive = driver.poll() is None and time.monotonic() < deadline
            assert alive, (self.folder / "log").read_text()[-3000:]
            time.sleep(0.1)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    folder = Path(tempfile.mkdtemp(prefix="study-hosts-"))  # pytest's own are closed to others
    folder.chmod(0o755)
    built = Hosts(folder)
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(FAKE)
    try:
        try:
            built.build()
        except OSError as error:
            pytest.skip(f"network namespaces cannot be made here: {error}")
        yield built
    finally:
        built.close()
        shutil.rmtree(folder, ignore_errors=True)


BUCKET = """
python -m moto.server -H 10.77.0.1 -p 9000 &
export AWS_ACCESS_KEY_ID=study AWS_SECRET_ACCESS_KEY=x AWS_DEFAULT_REGION=us-east-1
until python -c "import boto3
boto3.client('s3', endpoint_url='http://10.77.0.1:9000').create_bucket(Bucket='runs')"
do sleep 1; done; touch {}; wait
"""


def answer(out: str) -> Any:
    found = json.loads(out[out.index("{\n") :])
    return {name: found[name] for name in ("params", "mean", "standard_error", "repeats")}


def test_the_page_holds_what_it_says(hosts: Hosts) -> None:
    user = postgres.user()
    made = hosts.start(DATABASE, block(f"`{DATABASE}` as the user of the database"), user)
    assert made.wait(PATIENCE) == 0, (hosts.folder / "log").read_text()
    stop = f"pg_ctl -D {hosts.folder}/{DATABASE}-{user}/study-data -m immediate stop"
    try:
        follow(hosts)
    finally:
        hosts.start(DATABASE, stop, user).wait(PATIENCE)


def follow(hosts: Hosts) -> None:
    """The rest of the page, with two hosts that fail."""
    hosts.start(DATABASE, BUCKET.format(hosts.folder / "bucket"))
    hosts.start(DATABASE, block(f"`{DATABASE}`"))
    worker = block(f"`{DATABASE}`, `{SECOND}` and `{THIRD}`")
    for host in (DATABASE, SECOND, SECOND, THIRD):
        hosts.start(host, worker)
    while not (hosts.folder / "bucket").exists():
        time.sleep(0.2)
    begun = hosts.start(THIRD, block(f"`{THIRD}`"))
    hosts.wait_for(4, begun)
    hosts.kill(SECOND)  # two workers with it, in the middle of their runs
    hosts.start(DATABASE, worker)
    hosts.wait_for(len(hosts.trace) + 2, begun)
    hosts.kill(THIRD)  # the driver, and a worker
    resume = block(f"`{DATABASE}` after the driver has died")
    deadline = time.monotonic() + PATIENCE
    while True:
        resumed = hosts.start(DATABASE, resume)
        out, _ = resumed.communicate(timeout=2 * PATIENCE)
        if resumed.returncode == 0 or time.monotonic() > deadline:
            break
        time.sleep(5)  # the dead driver still holds the lock
    assert resumed.returncode == 0, (hosts.folder / "log").read_text()[-3000:]
    alone = "python -m study run smoke --jobs 1 --quiet; python -m study best --json"
    out_alone, _ = hosts.start(DATABASE, alone).communicate(timeout=2 * PATIENCE)
    assert answer(out) == answer(out_alone)
