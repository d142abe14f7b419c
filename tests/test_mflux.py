"""The handshake of MFlux, and which of four places says where runs are mirrored to."""

from pathlib import Path

import pytest
from servers import ACCESS_KEY, SECRET_KEY, TOKEN, Fault, MFlux, Proxy, free_port

from study.errors import MirrorError
from study.mirror.old_servers import handshake
from study.mirror.tracker import redact, resolve, secrets
from study.storage.location import Database


@pytest.fixture
def mflux():
    with MFlux("http://tracking", "http://bucket") as server:
        yield server


def test_a_token_becomes_addresses_and_keys(mflux):
    keys = handshake(mflux.host, TOKEN)
    assert (keys.tracking_uri, keys.s3_endpoint) == ("http://tracking", "http://bucket")
    assert (keys.access_key, keys.secret_key) == (ACCESS_KEY, SECRET_KEY)


def test_a_wrong_token_is_named_by_its_variable_and_never_shown(mflux):
    with pytest.raises(MirrorError, match="check MFLUX_TOKEN") as caught:
        handshake(mflux.host, "a-wrong-token")
    assert "a-wrong-token" not in str(caught.value)


def test_a_host_that_is_not_there_is_said_in_one_line():
    host = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(MirrorError, match="cannot be reached") as caught:
        handshake(host, TOKEN)
    assert host in str(caught.value)


def test_an_answer_without_an_address_is_refused(mflux):
    mflux.answer["minio_server"] = ""
    with pytest.raises(MirrorError, match="answers without"):
        handshake(mflux.host, TOKEN)


def test_a_host_that_is_no_mflux_is_refused(mflux):
    with pytest.raises(MirrorError, match="answers 404"):
        handshake(f"{mflux.host}/elsewhere", TOKEN)


def test_a_token_is_not_carried_to_where_a_redirect_points(mflux):
    proxy = Proxy(mflux.host, rule=lambda _: Fault(302))
    with proxy, pytest.raises(MirrorError, match="answers 302"):
        handshake(proxy.url, TOKEN)
    assert mflux.asked == 0


def test_an_address_without_a_scheme_is_refused_before_anything_is_sent():
    with pytest.raises(MirrorError, match="write https://HOST"):
        handshake("www.mflux.ai", TOKEN)


def test_keys_are_not_part_of_what_is_printed(mflux):
    target = resolve(
        None, {"MFLUX_TOKEN": TOKEN, "MFLUX_HOST": mflux.host}, Database.at("sqlite:///study.db")
    )
    printed = repr((target, handshake(mflux.host, TOKEN)))
    assert not any(secret in printed for secret in (TOKEN, ACCESS_KEY, SECRET_KEY))


ENVIRON = {"MFLUX_TOKEN": TOKEN, "MLFLOW_TRACKING_URI": "http://from-environment:5000"}


@pytest.mark.parametrize(
    ("option", "environ", "source", "shown"),
    [
        ("http://given:5000", ENVIRON, "--mlflow", "http://given:5000"),
        (None, ENVIRON, "MFLUX_TOKEN", "MFlux at https://www.mflux.ai"),
        (None, {"MLFLOW_TRACKING_URI": "http://from:5"}, "MLFLOW_TRACKING_URI", "http://from:5"),
        (None, {}, "default", "sqlite:////data/mlflow.db"),
    ],
)
def test_the_first_of_four_places_wins(option, environ, source, shown):
    target = resolve(option, environ, Database.at("sqlite:////data/study.db"))
    assert (target.source, target.shown) == (source, shown)


def test_none_turns_the_mirror_off():
    assert resolve("none", ENVIRON, Database.at("sqlite:///study.db")) is None


def test_a_database_on_a_server_has_its_local_store_in_the_current_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    target = resolve(None, {}, Database.at("postgresql+psycopg://user:pw@host/study"))
    assert target.uri == f"sqlite:///{tmp_path / 'mlflow.db'}"


def test_a_word_that_is_no_address_is_refused():
    with pytest.raises(MirrorError, match="write http://HOST:PORT"):
        resolve("localhost:5000", {}, Database.at("sqlite:///study.db"))


def test_a_host_of_mflux_that_is_no_address_is_refused():
    environ = {"MFLUX_TOKEN": TOKEN, "MFLUX_HOST": "http://[host"}
    with pytest.raises(MirrorError, match="write https://HOST"):
        resolve(None, environ, Database.at("sqlite:///study.db"))


def test_a_password_in_an_address_is_neither_shown_nor_left_in_a_message():
    target = resolve(
        "http://me:pa55word@host:5000/path?key=1", {}, Database.at("sqlite:///study.db")
    )
    assert target.shown == "http://host:5000/path"
    hidden = secrets(target, environ={})
    assert "pa55word" not in redact(f"cannot reach {target.uri}\nnow", hidden)


def test_a_message_is_one_line_without_secrets():
    target = resolve(None, {"MFLUX_TOKEN": TOKEN}, Database.at("sqlite:///study.db"))
    hidden = secrets(target, environ={"AWS_SECRET_ACCESS_KEY": "s3cr3t/key"})
    assert redact(f"no: {TOKEN}\n  s3cr3t/key s3cr3t%2Fkey", hidden) == "no: *** *** ***"


def test_a_store_that_is_a_file_is_the_same_from_any_folder():
    target = resolve("sqlite:///here.db", {}, Database.at("sqlite:///study.db"))
    assert Path(target.uri.removeprefix("sqlite:///")) == Path("here.db").resolve()
