from __future__ import annotations

from pathlib import Path

import pytest

from db.errors import ModelLoadError, SettingsError
from worker.engine.openai_api.settings import Dialect, read, read_key
from worker.engine.protocol import EngineConfig

GOOGLE = "https://generativelanguage.googleapis.com/v1beta/openai/"
SELF_HOSTED = {"base_url": "http://gpu-1:8000/v1"}


def test_given_no_options_when_read_then_it_is_openai_without_limits() -> None:
    settings = read(EngineConfig("m"))
    assert settings.host == "api.openai.com"
    assert settings.dialect is Dialect.OPENAI
    assert settings.rpm == settings.tpm == float("inf")
    assert settings.capacity == 64


@pytest.mark.parametrize(
    ("options", "dialect"),
    [
        ({"base_url": GOOGLE}, Dialect.GOOGLE),
        (SELF_HOSTED, Dialect.NONE),
        ({**SELF_HOSTED, "extensions": "vllm"}, Dialect.VLLM),
        ({"extensions": "none"}, Dialect.NONE),
    ],
)
def test_given_an_endpoint_when_read_then_its_dialect_is_known_or_told(
    options: dict[str, str], dialect: Dialect
) -> None:
    assert read(EngineConfig("m", options=options)).dialect is dialect


@pytest.mark.parametrize(
    "options",
    [
        {"base_url": "api.openai.com/v1"},
        {"base_url": "ftp://h/v1"},
        {"base_url": "https://me:marker@h/v1"},
        {"base_url": "https://h/v1?key=marker"},
        {"base_url": "https:///v1"},
        {"api": "responses"},
        {"rpm": "0"},
        {"tpm": "many"},
        {"timeout": "0"},
        {"timeout": "inf"},
        {"max_retries": "-1"},
        {"max_retries": "inf"},
        {"extensions": "tgi"},
    ],
    ids=str,
)
def test_given_a_bad_option_when_read_then_it_is_named_and_no_secret_shown(
    options: dict[str, str],
) -> None:
    with pytest.raises(SettingsError, match=next(iter(options))) as caught:
        read(EngineConfig("m", options=options))
    assert "marker" not in str(caught.value)


def test_given_a_file_when_the_key_is_read_then_it_wins_over_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of-the-environment")
    plain = read_key(read(EngineConfig("m")))
    assert plain is not None
    assert plain.get_secret_value() == "of-the-environment"
    file = tmp_path / "key"
    file.write_text("of-the-file\n")
    key = read_key(read(EngineConfig("m", options={"api_key_file": str(file)})))
    assert key is not None
    assert key.get_secret_value() == "of-the-file"


def test_given_no_key_when_the_endpoint_is_self_hosted_then_it_gets_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert read_key(read(EngineConfig("m", options=SELF_HOSTED))) is None


@pytest.mark.parametrize("url", ["https://api.openai.com/v1", GOOGLE])
def test_given_no_key_when_the_endpoint_wants_one_then_it_says_how_to_give_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ModelLoadError, match=r"OPENAI_API_KEY.*api_key_file"):
        read_key(read(EngineConfig("m", options={"base_url": url})))


@pytest.mark.parametrize("content", [b"", b" \n", b"marker key", b"marker\nkey", b"marker\xff"])
def test_given_a_file_without_a_key_when_read_then_it_is_said_and_not_shown(
    content: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(ModelLoadError, match="key") as caught:
        read_key(read(EngineConfig("m", options={"api_key_file": str(file)})))
    assert "marker" not in str(caught.value)
    file.unlink()
    with pytest.raises(ModelLoadError, match="No such file"):
        read_key(read(EngineConfig("m", options={"api_key_file": str(file)})))
