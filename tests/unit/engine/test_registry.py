from __future__ import annotations

import importlib
import subprocess
import sys
from typing import Any, get_args

import pytest

from db.errors import SettingsError
from db.settings import Settings
from worker.engine.protocol import EngineConfig
from worker.engine.registry import create, engine_names


def test_given_an_unknown_name_when_created_then_the_nearest_is_offered() -> None:
    with pytest.raises(SettingsError, match="did you mean 'transformers'"):
        create("transformer", EngineConfig("m"))


def test_given_a_name_like_none_when_created_then_all_are_listed() -> None:
    with pytest.raises(SettingsError, match="known: echo, keras, openai, transformers, vllm"):
        create("zzz", EngineConfig("m"))


@pytest.mark.parametrize("name", engine_names())
def test_given_an_unknown_option_when_created_then_it_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match="no option 'colour'"):
        create(name, EngineConfig("m", options={"colour": "red"}))


@pytest.mark.parametrize(
    ("option", "value"),
    [("latency", "-1"), ("latency", "soon"), ("capacity", "0"), ("faults", "x")],
)
def test_given_a_bad_option_of_echo_when_created_then_it_is_named(option: str, value: str) -> None:
    with pytest.raises(SettingsError, match=option):
        create("echo", EngineConfig("m", options={option: value}))


def test_given_the_echo_engine_when_used_then_no_model_library_is_imported() -> None:
    program = (
        "import sys; from worker.engine.registry import create;"
        "from worker.engine.protocol import EngineConfig;"
        "create('echo', EngineConfig('m')).start();"
        "assert not {'torch', 'transformers', 'keras', 'tensorflow', 'jax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("engine", "package", "extra"),
    [("transformers", "transformers", "worker"), ("openai", "openai_api", "openai")],
)
def test_given_a_missing_library_when_created_then_the_extra_is_named(
    engine: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is imported anew below must not stay the attribute that other tests reach it by.
    parent: Any = importlib.import_module("worker.engine")
    if hasattr(parent, package):
        monkeypatch.setattr(parent, package, getattr(parent, package))
    for name in [name for name in sys.modules if name.startswith(f"worker.engine.{package}")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, engine, None)
    with pytest.raises(SettingsError, match=rf"'\.\[{extra}\]'"):
        create(engine, EngineConfig("m"))


def test_given_no_keras_hub_when_created_then_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(SettingsError, match=r"'keras_hub'.*'\.\[keras\]'"):
        create("keras", EngineConfig("m"))


def test_given_another_framework_when_keras_is_created_then_it_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    with pytest.raises(SettingsError, match=r"KERAS_BACKEND=torch.*tensorflow or jax"):
        create("keras", EngineConfig("m"))
    with pytest.raises(SettingsError, match="option 'backend': 'torch'"):
        create("keras", EngineConfig("m", options={"backend": "torch"}))


def test_given_the_engine_keras_when_created_then_its_library_is_not_yet_imported() -> None:
    program = (
        "import sys; from db.errors import SettingsError;"
        "from worker.engine.registry import create;"
        "from worker.engine.protocol import EngineConfig\n"
        "try: create('keras', EngineConfig('m'))\n"
        "except SettingsError: pass\n"
        "assert 'worker.engine.kerashub.engine' in sys.modules\n"
        "assert not {'keras', 'keras_hub', 'tensorflow', 'jax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_given_the_setting_when_compared_then_it_knows_every_engine() -> None:
    known = get_args(Settings.model_fields["engine"].annotation)
    assert sorted(known) == engine_names()
