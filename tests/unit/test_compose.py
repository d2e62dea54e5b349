"""docker-compose.yml, Dockerfile and .env.example against the program that they run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from db.settings import PREFIX, Settings
from tests.support import dockerfile
from tests.support.command_line import parse

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text("utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
STAGES = dockerfile.stages((ROOT / "Dockerfile").read_text("utf-8"))
ENV_EXAMPLE = (ROOT / ".env.example").read_text("utf-8")

OURS = sorted(name for name, service in SERVICES.items() if "build" in service)
WORKERS = ["worker", "worker-gpu", "worker-hosted"]
#: They end by themselves, so there is no health to check.
ONE_SHOT = {"migrate", "producer"}


def environment_of(name: str) -> dict[str, str | None]:
    environment: dict[str, str | None] = SERVICES[name].get("environment", {})
    return environment


def seconds(duration: str) -> int:
    match = re.fullmatch(r"(\d+)(s|m)", duration)
    assert match is not None, duration
    return int(match[1]) * {"s": 1, "m": 60}[match[2]]


def test_every_image_of_ours_is_a_stage_that_starts_promptmill() -> None:
    assert {"producer", "worker-cpu", "worker-gpu", "worker-hosted"} <= set(STAGES)
    for name in OURS:
        target = SERVICES[name]["build"]["target"]
        assert dockerfile.inherited(STAGES, target, "ENTRYPOINT") == ["promptmill"], name


@pytest.mark.parametrize("name", [name for name in OURS if "command" in SERVICES[name]])
def test_every_command_of_a_service_is_one_that_the_program_takes(name: str) -> None:
    parse(SERVICES[name]["command"])


@pytest.mark.parametrize("stage", ["worker-cpu", "worker-gpu", "worker-hosted"])
def test_every_default_command_of_an_image_is_one_that_the_program_takes(stage: str) -> None:
    parse(dockerfile.inherited(STAGES, stage, "CMD"))


def test_every_command_shown_in_the_comments_is_one_that_the_program_takes() -> None:
    shown = re.findall(r"# +docker compose run --rm (?:-T )?producer (.*)", TEXT)
    assert len(shown) == 3
    for line in shown:
        words = [word for word in shlex.split(line.partition(" >")[0]) if word != "…"]
        parse(words)


def test_a_command_that_the_program_does_not_take_is_noticed() -> None:
    with pytest.raises(click.UsageError):
        parse(["worker", "--devise", "cpu"])
    with pytest.raises(click.UsageError):
        parse(["db", "upgrate"])


def test_every_setting_exists() -> None:
    known = {PREFIX + field.upper() for field in Settings.model_fields}
    named = set(re.findall(rf"\b{PREFIX}[A-Z_]+\b", TEXT + ENV_EXAMPLE))
    assert named
    assert named <= known


def test_every_fixed_setting_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OURS:
        for variable, value in environment_of(name).items():
            if variable.startswith(PREFIX) and value is not None:
                monkeypatch.setenv(variable, interpolated(value))
        settings = Settings()
        assert (
            settings.database_url
            == "postgresql+psycopg://promptmill:given@postgres:5432/promptmill"
        )
        assert settings.broker_url == "redis://:given@redis:6379/0"


def interpolated(value: str) -> str:
    return re.sub(r"\$\{[^}]*\}", "given", value)


def test_every_service_has_a_health_check_or_ends_by_itself() -> None:
    for name, service in SERVICES.items():
        if name in ONE_SHOT:
            assert service["restart"] == "no", name
        else:
            assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}, name
            assert service["restart"] == "unless-stopped", name


def test_whoever_needs_the_schema_waits_for_the_migration() -> None:
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for name in (*WORKERS, "producer"):
        assert SERVICES[name]["depends_on"] == {
            "migrate": {"condition": "service_completed_successfully"},
            "redis": {"condition": "service_healthy"},
            "postgres": {"condition": "service_healthy"},
        }, name


def test_workers_can_be_scaled() -> None:
    for name in WORKERS:
        assert not {"container_name", "ports", "hostname"} & set(SERVICES[name]), name


def test_workers_are_started_by_profile_and_the_rest_always() -> None:
    profiles = {name: service.get("profiles", []) for name, service in SERVICES.items()}
    assert profiles == {
        "postgres": [],
        "redis": [],
        "migrate": [],
        "worker": ["cpu"],
        "worker-gpu": ["gpu"],
        "worker-hosted": ["hosted"],
        "producer": ["tools"],
    }


def test_a_stopping_worker_has_longer_than_its_grace_and_its_last_writes() -> None:
    for name in WORKERS:
        grace = environment_of(name)["PROMPTMILL_GRACE"]
        assert grace is not None
        assert seconds(SERVICES[name]["stop_grace_period"]) >= float(grace) + 15


def test_the_gpu_worker_reserves_gpus() -> None:
    (device,) = SERVICES["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert "deploy" not in SERVICES["worker"]


def test_downloaded_models_outlive_their_container() -> None:
    for name in WORKERS:
        assert "models:/cache" in SERVICES[name]["volumes"]
    assert "HF_HOME=/cache" in " ".join(STAGES["base"].values("ENV"))


def test_every_named_volume_is_declared() -> None:
    used = {
        volume.partition(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", [])
    }
    assert {name for name in used if not name.startswith((".", "/"))} == set(COMPOSE["volumes"])


def test_no_secret_has_a_value() -> None:
    secrets = re.findall(r"\$\{(\w*PASSWORD\w*)(.*?)\}", TEXT)
    assert {name for name, _ in secrets} == {"POSTGRES_PASSWORD", "REDIS_PASSWORD"}
    for name, rest in secrets:
        assert rest.startswith(":?"), f"{name} must be refused when it is empty"
        assert re.search(rf"^{name}=$", ENV_EXAMPLE, re.MULTILINE), f"{name} has a value to copy"
    assert not re.search(r"://\w*:(?!\$\{)[^@\s]+@", TEXT), "a literal password in a URL"
    for name in SERVICES:
        for variable, value in environment_of(name).items():
            if re.search("PASSWORD|AUTH|TOKEN|KEY$", variable):
                assert value is None or value.startswith("${"), f"{name}: {variable}"


def test_every_variable_that_must_be_set_is_in_the_example() -> None:
    for name in set(re.findall(r"\$\{(\w+):\?", TEXT)):
        assert re.search(rf"^{name}=$", ENV_EXAMPLE, re.MULTILINE), name


def test_the_images_copy_only_what_the_build_context_holds() -> None:
    allowed = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines()
        if line.startswith("!")
    }
    for stage in STAGES.values():
        for copy in stage.values("COPY"):
            if not copy.startswith("--from="):
                assert set(copy.split()[:-1]) <= allowed, copy
    assert all((ROOT / name).exists() for name in allowed)


def test_images_run_as_an_ordinary_user_with_the_versions_known_to_work() -> None:
    for name in ("producer", "worker-cpu", "worker-gpu", "worker-hosted"):
        assert STAGES[name].values("USER") == ["promptmill"], name
    installs = [
        run for stage in STAGES.values() for run in stage.values("RUN") if "pip install" in run
    ]
    assert len(installs) == 8
    for run in installs:
        assert "-c constraints.txt" in run or "--no-deps" in run, run


def test_the_worker_of_a_hosted_model_alone_gets_the_key_from_outside() -> None:
    having = [name for name in SERVICES if "OPENAI_API_KEY" in environment_of(name)]
    assert having == ["worker-hosted"]
    assert environment_of("worker-hosted")["OPENAI_API_KEY"] is None
    assert set(environment_of("worker")) < set(environment_of("worker-hosted"))
