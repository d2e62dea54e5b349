"""Settings: a bad one names itself, and no secret of one is ever shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from db.errors import SettingsError
from db.settings import PREFIX, Settings, redact, settings, variable

SECRET = "hunter2"


@pytest.fixture(autouse=True)
def fresh_cache() -> None:
    settings.cache_clear()


@pytest.fixture(autouse=True)
def no_test_services(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the test services are is no setting of the program's."""
    for name in ("POSTGRES", "REDIS"):
        monkeypatch.delenv(f"{PREFIX}TEST_{name}", raising=False)


def test_given_nothing_when_read_then_everything_is_embedded(tmp_path: Path) -> None:
    config = settings()
    assert config.embedded_broker
    assert config.embedded_database
    assert config.effective_database_url == f"sqlite:///{config.home / 'promptmill.db'}"
    assert config.effective_broker_url.startswith("redis+socket://")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("chunk_size", "0"),
        ("chunk_size", "10001"),
        ("chunk_size", "many"),
        ("slots", "0"),
        ("slots", "257"),
        ("lease", "1"),
        ("lease", "inf"),
        ("lease", "nan"),
        ("grace", "-1"),
        ("max_attempts", "0"),
        ("max_attempts", "101"),
        ("flush_interval", "0"),
        ("recovery_interval", "nan"),
        ("kv_memory_fraction", "1"),
        ("kv_memory_fraction", "0"),
        ("max_concurrency", "0"),
        ("max_batch_tokens", "0"),
        ("max_prompt_bytes", "0"),
        ("device", "gpu"),
        ("device", "cuda:x"),
        ("dtype", "float8"),
        ("log_level", "LOUD"),
        ("trust_remote_code", "perhaps"),
        ("database_url", f"mysql://u:{SECRET}@h/d"),
        ("database_url", f"postgresql+asyncpg://u:{SECRET}@h/d"),
        ("broker_url", f"amqp://u:{SECRET}@h"),
    ],
)
def test_given_a_bad_value_when_read_then_the_error_names_its_variable_in_one_line(
    field: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable(field), value)
    with pytest.raises(SettingsError) as failure:
        settings()
    assert failure.value.message.startswith(f"{variable(field)}: ")
    assert "\n" not in failure.value.message
    assert SECRET not in failure.value.message


def test_given_numbers_among_the_options_when_read_then_they_are_texts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PROMPTMILL_ENGINE_OPTIONS", '{"prompt_lookup": 10, "latency": 0.5}')
    assert settings().engine_options == {"prompt_lookup": "10", "latency": "0.5"}


def test_given_options_that_are_no_json_when_read_then_the_error_names_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PROMPTMILL_ENGINE_OPTIONS", "latency=1")
    with pytest.raises(SettingsError) as failure:
        settings()
    assert failure.value.message == (
        'PROMPTMILL_ENGINE_OPTIONS: is not valid JSON: write it as {"name": "value"}'
    )


def test_given_a_misspelt_setting_when_read_then_the_nearest_is_offered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PROMPTMILL_DATABSE_URL", f"postgresql+psycopg://u:{SECRET}@h/d")
    with pytest.raises(SettingsError) as failure:
        settings()
    assert failure.value.message == (
        "unknown setting PROMPTMILL_DATABSE_URL: did you mean PROMPTMILL_DATABASE_URL?"
    )


def test_given_a_setting_like_no_other_when_read_then_the_list_is_pointed_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PROMPTMILL_XYZZYQWQ", "1")
    with pytest.raises(SettingsError, match=r"unknown setting PROMPTMILL_XYZZYQWQ: see docs/"):
        settings()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("sqlite:////tmp/a@b.db", "sqlite:////tmp/a@b.db"),
        (f"redis://:{SECRET}@host/0", "redis://:***@host/0"),
        (f"rediss://u:{SECRET}@host:1/0", "rediss://u:***@host:1/0"),
        (f"postgresql+psycopg://u:{SECRET}@h:5/d", "postgresql+psycopg://u:***@h:5/d"),
        ("postgresql+psycopg://u@h/d", "postgresql+psycopg://u@h/d"),
        (f"postgresql+psycopg://u:a#{SECRET}@h/d", "postgresql+psycopg://u:***@h/d"),
        (f"postgresql+psycopg://u:a/{SECRET}@h/d", "postgresql+psycopg://u:***@h/d"),
        (f"postgresql+psycopg://u:a?{SECRET}@h/d", "postgresql+psycopg://u:***@h/d"),
        (f"postgresql+psycopg://u:[{SECRET}@h/d", "postgresql+psycopg://u:***@h/d"),
        (f"postgresql+psycopg://u:a@{SECRET}@h/d", "postgresql+psycopg://u:***@h/d"),
        (f"postgresql+psycopg://u:{SECRET}@[::1]:5/d", "postgresql+psycopg://u:***@[::1]:5/d"),
        (
            f"postgresql+psycopg://u@h/d?x=1&password={SECRET}&y=2",
            "postgresql+psycopg://u@h/d?x=1&password=***&y=2",
        ),
    ],
)
def test_given_a_url_when_redacted_then_all_but_the_password_stays(url: str, shown: str) -> None:
    assert redact(url) == shown


def test_given_urls_with_passwords_when_settings_are_shown_then_the_passwords_are_not() -> None:
    config = Settings(
        database_url=f"postgresql+psycopg://u:{SECRET}@h/d", broker_url=f"redis://:{SECRET}@h/0"
    )
    assert SECRET not in repr(config)
    assert SECRET not in str(config)
    with pytest.raises(SettingsError) as failure:
        config.with_(database_url=f"oracle://u:{SECRET}@h/d")
    assert SECRET not in failure.value.message


def test_given_changes_when_a_copy_is_made_then_it_is_validated_and_the_original_stays() -> None:
    config = Settings(model="a", slots=3)
    copy = config.with_(model="b", device=None)
    assert (copy.model, copy.slots, copy.device) == ("b", 3, "auto")
    assert config.model == "a"
    with pytest.raises(SettingsError, match=r"^PROMPTMILL_SLOTS: input should be .* 1$"):
        config.with_(slots=0)


def test_given_an_environment_when_a_copy_is_made_then_it_does_not_leak_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = Settings(model="a")
    monkeypatch.setenv("PROMPTMILL_SLOTS", "7")
    monkeypatch.setenv("PROMPTMILL_DATABASE_URL", "sqlite:////elsewhere.db")
    assert config.with_(model="b") == config.model_copy(update={"model": "b"})


def test_given_a_setting_that_there_is_not_when_a_copy_is_made_then_it_is_refused() -> None:
    with pytest.raises(SettingsError, match="PROMPTMILL_MODELL"):
        Settings().with_(modell="b")


def test_given_settings_when_changed_in_place_then_that_is_refused() -> None:
    config = Settings()
    with pytest.raises(ValidationError, match="frozen"):
        config.__setattr__("slots", 3)


def test_given_a_home_with_a_tilde_when_read_then_it_is_absolute(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Settings(home=Path("~/mill")).home == tmp_path / "mill"
    monkeypatch.chdir(tmp_path)
    assert Settings(home=Path("mill")).home == tmp_path / "mill"


@pytest.mark.parametrize(("lease", "interval"), [(2.0, 0.5), (30.0, 2.0), (600.0, 2.0)])
def test_given_a_lease_when_the_heartbeat_is_set_then_it_is_renewed_well_in_time(
    lease: float, interval: float
) -> None:
    assert Settings(lease=lease).heartbeat_interval == interval


@pytest.mark.parametrize("value", ["1" + "0" * 30, "1e30", "1e400", "nan", "-1" + "0" * 30])
def test_enormous_number_is_out_of_range_by_name(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    fields = Settings.model_json_schema()["properties"]
    numbers = [name for name, field in fields.items() if _is_number(field)]
    assert {"lease", "slots", "max_prompt_bytes", "kv_memory_fraction"} <= set(numbers)
    for name in numbers:
        monkeypatch.setenv(variable(name), value)
        with pytest.raises(SettingsError, match=variable(name)):
            settings()
        monkeypatch.delenv(variable(name))


def _is_number(field: dict[str, Any]) -> bool:
    kinds = [field, *field.get("anyOf", ())]
    return any(kind.get("type") in ("integer", "number") for kind in kinds)
