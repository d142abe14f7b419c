"""Which of four places says where runs are mirrored to, and the handshake of MFlux."""

from pathlib import Path

import pytest
from servers import ACCESS_KEY, SECRET_KEY, TOKEN, Fault, MFlux, Proxy, free_port

from study.errors import MirrorError
from study.mirror.old_servers import handshake
from study.mirror.tracker import Target, redact, resolve, secrets
from study.storage.location import Database

HERE = Database.at("sqlite:////data/study.db")
ENVIRON = {"MFLUX_TOKEN": TOKEN, "MLFLOW_TRACKING_URI": "http://from-environment:5000"}


def target(option: str | None = None, **environ: str) -> Target:
    found = resolve(option, environ, HERE)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("option", "environ", "source", "shown"),
    [
        ("http://given:5000", ENVIRON, "--mlflow", "http://given:5000"),
        (None, ENVIRON, "MFLUX_TOKEN", "MFlux at https://www.mflux.ai"),
        (None, {"MLFLOW_TRACKING_URI": "http://from:5"}, "MLFLOW_TRACKING_URI", "http://from:5"),
        (None, {}, "default", "sqlite:////data/mlflow.db"),
        ("http://me:pw@host/path?key=1", {}, "--mlflow", "http://host/path"),
    ],
)
def test_the_first_of_four_places_wins(option, environ, source, shown) -> None:
    found = target(option, **environ)
    assert (found.source, found.shown) == (source, shown)


def test_none_turns_the_mirror_off() -> None:
    assert resolve("none", ENVIRON, HERE) is None


def test_a_store_that_is_a_file_is_the_same_from_any_folder(monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    assert target("sqlite:///here.db").file == tmp_path / "here.db"
    server = Database.at("postgresql+psycopg://user:pw@host/study")
    beside = resolve(None, {}, server)
    assert beside is not None
    assert beside.file == Path("mlflow.db").resolve()


@pytest.mark.parametrize(
    ("option", "environ", "says"),
    [
        ("localhost:5000", {}, "--mlflow localhost:5000: .* write http://HOST:PORT"),
        ("http://host:port", {}, "write http://HOST:PORT"),
        (None, {"MLFLOW_TRACKING_URI": "file:///tmp/runs"}, "MLFLOW_TRACKING_URI file:///tmp/runs"),
        (None, {"MFLUX_TOKEN": TOKEN, "MFLUX_HOST": "http://[host"}, "write https://HOST"),
        (None, {"MFLUX_TOKEN": TOKEN, "MFLUX_HOST": "www.mflux.ai"}, "write https://HOST"),
    ],
)
def test_what_is_not_an_address_is_refused_before_anything_is_sent(option, environ, says) -> None:
    with pytest.raises(MirrorError, match=says):
        resolve(option, environ, HERE)


# --- MFlux ---------------------------------------------------------------------------------------


@pytest.fixture
def mflux():
    with MFlux("http://tracking", "http://bucket") as server:
        yield server


def test_a_token_becomes_addresses_and_keys_that_are_not_printed(mflux) -> None:
    keys = handshake(mflux.host, TOKEN)
    assert (keys.tracking_uri, keys.s3_endpoint) == ("http://tracking", "http://bucket")
    assert (keys.access_key, keys.secret_key) == (ACCESS_KEY, SECRET_KEY)
    printed = repr((target(MFLUX_TOKEN=TOKEN, MFLUX_HOST=mflux.host), keys))
    assert not any(secret in printed for secret in (TOKEN, ACCESS_KEY, SECRET_KEY))


@pytest.mark.parametrize(
    ("path", "token", "says"),
    [("", "a-wrong-token", "check MFLUX_TOKEN"), ("/elsewhere", TOKEN, "answers 404")],
)
def test_a_refusal_is_one_line_without_the_token(mflux, path, token, says) -> None:
    with pytest.raises(MirrorError, match=says) as caught:
        handshake(mflux.host + path, token)
    assert token not in str(caught.value)


def test_a_host_that_is_not_there_is_named() -> None:
    host = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(MirrorError, match=f"{host} cannot be reached"):
        handshake(host, TOKEN)


@pytest.mark.parametrize("name", ["mlflow_server", "minio_server", "minio_access_key"])
def test_an_answer_that_lacks_something_is_refused(mflux, name) -> None:
    mflux.answer[name] = ""
    with pytest.raises(MirrorError, match="answers without"):
        handshake(mflux.host, TOKEN)


@pytest.mark.parametrize("name", ["mlflow_server", "minio_server"])
@pytest.mark.parametrize(
    "address", ["sqlite:////tmp/any/path.db", "file:///tmp/any", "postgresql://host/db", "http://"]
)
def test_an_answer_may_name_web_servers_alone(mflux, name, address) -> None:
    mflux.answer[name] = address
    with pytest.raises(MirrorError, match=f"a {name} that is not an http"):
        handshake(mflux.host, TOKEN)


def test_a_token_is_not_carried_to_where_a_redirect_points(mflux) -> None:
    proxy = Proxy(mflux.host, rule=lambda _: Fault(302))
    with proxy, pytest.raises(MirrorError, match="answers 302"):
        handshake(proxy.url, TOKEN)
    assert mflux.asked == 0


# --- secrets -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "environ", "message"),
    [
        ("http://me:pa55@host", {}, "refused: Basic bWU6cGE1NQ=="),
        ("http://me:pa%2F55@host", {}, "no pa/55, no pa%2F55"),
        (
            "http://host",
            {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "pa55"},
            "echo {'authorization': 'bWU6cGE1NQ=='} pa55",
        ),
        ("http://host", {"AWS_ENDPOINT_URL": "http://key:pa55@s3"}, "to http://key:pa55@s3/models"),
        ("http://host", {"AWS_SECRET_ACCESS_KEY": "pa/55"}, "pa/55\n or  pa%2F55"),
        ("http://host", {"https_proxy": "http://key:pa55@proxy"}, "proxy key:pa55 fails"),
        ("http://host?api_key=pa55", {}, "GET /?api_key=pa55"),
        ("postgresql://me:pa55@host/db?password=pa55", {}, "password pa55 failed"),
    ],
)
def test_no_form_of_a_password_is_left_in_a_message(uri, environ, message) -> None:
    said = redact(message, secrets(target(uri), environ=environ))
    assert "***" in said
    assert "\n" not in said
    assert not any(secret in said for secret in ("pa55", "pa/55", "pa%2F55", "bWU6cGE1NQ"))
