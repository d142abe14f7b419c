"""The doctor names the link that is broken, in words, without secrets."""

import os
import re

import mirror_fakes
import numpy as np
import pytest
import servers
from servers import ACCESS_KEY, SECRET_KEY, TOKEN, Fault, MFlux, Proxy

from study.cli.doctor import Finding, _gpu, examine
from study.workers.devices import CPU, HIDDEN, Card, Devices


def findings(storage, option=None, environ=None, data=None, space=None) -> dict[str, Finding]:
    found = {}
    for finding in examine(storage, data, option, environ or {}, space):
        found[finding.link] = finding
        if finding.link == "data":  # the devices are for whoever can wait for TensorFlow
            break
    return found


@pytest.fixture
def storage(tmp_path):
    return f"sqlite:///{tmp_path / 'study.db'}"


def test_with_nothing_set_up_everything_is_fine(storage):
    found = findings(storage)
    assert all(finding.fine is not False for finding in found.values())
    assert "is made with the first run" in found["MLflow"].says
    assert "is made with the first study" in found["database"].says
    assert "28x28x1 in 10 classes" in found["data"].says


def test_a_database_says_how_many_studies_it_holds(tmp_path):
    made = mirror_fakes.make(tmp_path)
    assert "holds 1 study" in findings(made.url)["database"].says


def test_an_unwritable_database_and_unreadable_data_are_named(tmp_path):
    found = findings(f"sqlite:///{tmp_path / 'nowhere' / 'study.db'}", data=str(tmp_path / "no"))
    assert (found["database"].fine, found["data"].fine) == (False, False)
    assert "no such folder" in found["database"].says


def test_data_are_read_as_a_space_says(storage, tmp_path):
    images = np.zeros((40, 6, 5), np.uint8)
    np.savez(tmp_path / "ages.npz", x_train=images, y_train=np.arange(40) / 4)
    space = tmp_path / "ages.toml"
    space.write_text(
        f'name = "ages"\ndata = "{tmp_path / "ages.npz"}"\ntask = "regression"\n'
        'metric = "val_mae"\ndirection = "minimize"\nepochs = 1\nbatch_size = 1\nrepeats = 1\n'
        "hyperparameters.width = { options = [1, 2], start = 1 }\n"
    )
    says = findings(storage, space=str(space))["data"].says
    assert re.search(r"32 images of 6x5x1 with numbers from [\d.]+ to [\d.]+, 8 more", says)
    wrong = findings(storage, data=str(tmp_path / "ages.npz"))["data"]
    assert (wrong.fine, 'give a space task = "regression"' in wrong.says) == (False, True)
    absent = findings(storage, space=str(tmp_path / "no.toml"))["data"]
    assert (absent.fine, "no.toml: no such file" in absent.says) == (False, True)


def test_a_wrong_token_ends_the_probes_of_mlflow(storage):
    with MFlux("http://tracking", "http://bucket") as mflux:
        environ = {"MFLUX_TOKEN": "wrong-token", "MFLUX_HOST": mflux.host}
        found = findings(storage, environ=environ)
    assert found["MFlux"].fine is False
    assert "check MFLUX_TOKEN" in found["MFlux"].says
    assert "MLflow" not in found
    assert "wrong-token" not in str(found)


def test_an_address_that_is_none_is_named(storage):
    assert "is not the address of" in findings(storage, "localhost")["MLflow"].says


def test_without_a_mirror_there_is_nothing_to_probe(storage):
    assert findings(storage, "none")["MLflow"].fine is None


def test_a_server_that_is_not_there_is_named(storage):
    found = findings(storage, f"http://127.0.0.1:{servers.free_port()}")
    assert found["MLflow"].fine is False
    assert "is not there" in found["MLflow"].says


@pytest.mark.parametrize("keys", [{ACCESS_KEY}, {"another"}])
def test_a_bucket_is_written_and_read_and_its_refusal_named(storage, keys):
    running = servers.running()
    s3 = Proxy(running.s3.url, rule=servers.as_minio(keys))
    with s3, MFlux(running.mlflow.url, s3.url) as mflux:
        found = findings(storage, environ={"MFLUX_TOKEN": TOKEN, "MFLUX_HOST": mflux.host})
    assert "MLflow 3" in found["MLflow"].says
    if ACCESS_KEY in keys:
        assert "can be written and read" in found["artifacts"].says
        assert [request.method for request in s3.requests] == ["PUT", "GET", "DELETE"]
    else:
        assert found["artifacts"].fine is False
        assert "check its keys" in found["artifacts"].says
    assert not any(secret in str(found) for secret in (TOKEN, ACCESS_KEY, SECRET_KEY))


def test_an_old_server_is_recognised(storage):
    running = servers.running()
    with Proxy(running.mlflow.url, rule=servers.as_old) as old:
        assert "MLflow 1.x" in findings(storage, old.url)["MLflow"].says


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (Fault(401, b"who are you"), "refuses the token or password (401)"),
        (Fault(403, b"no"), "refuses access (403)"),
        (Fault(404, b"<h1>a web page</h1>"), "not that of an MLflow server"),
        (Fault(200, b"<h1>a web page</h1>"), "not that of an MLflow server"),
        (Fault(500, b"a fault"), "an internal error (500)"),
    ],
)
@pytest.mark.parametrize("path", ["", "/api/"])
def test_a_server_that_does_not_serve_is_not_called_fine(storage, answer, says, path):
    running = servers.running()
    rule = lambda request: answer if path in request.path else None  # noqa: E731
    with Proxy(running.mlflow.url, rule=rule) as broken:
        found = findings(storage, broken.url)["MLflow"]
    assert found.fine is False
    assert says in found.says


@pytest.mark.tensorflow
def test_the_devices_of_tensorflow_are_listed(storage, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    *_, devices, gpu = examine(storage, "digits", "none", {})
    assert devices.fine, devices.says
    assert "cores" in devices.says
    assert (gpu.fine, gpu.says) == (None, "nvidia-smi shows no GPU here")


@pytest.mark.tensorflow
def test_a_card_that_nvidia_smi_alone_knows_is_named_with_what_is_missing(
    storage, tmp_path, monkeypatch
):
    pretended = tmp_path / "nvidia-smi"
    pretended.write_text("#!/bin/sh\necho 'GPU-1, NVIDIA H200, 143771, 570.86.15'\n")
    pretended.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    *_, gpu = examine(storage, "digits", "none", {})
    assert gpu.fine is False
    assert "NVIDIA H200 (140 GiB, driver 570.86.15): " in gpu.says
    assert "no library sees it (tensorflow: " in gpu.says


CARDS = (Card("GPU-1", "NVIDIA H200", 143771, "570.86.15"),)


@pytest.mark.parametrize(
    ("here", "fine", "says"),
    [
        (CPU, None, "nvidia-smi shows no GPU here"),
        (Devices(problem=HIDDEN), None, HIDDEN),
        (Devices(problem="nvidia-smi fails (no driver)"), False, "nvidia-smi fails (no driver)"),
        (Devices(cards=CARDS, problem="no library"), False, "driver 570.86.15): no library"),
        (Devices("gpu", CARDS, ("tensorflow", "jax"), ""), True, "seen by tensorflow and jax"),
    ],
)
def test_a_gpu_that_cannot_be_used_is_wrong_and_none_is_not(here, fine, says):
    finding = _gpu(here)
    assert finding.fine is fine
    assert finding.says.endswith(says)
