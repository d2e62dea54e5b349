"""The key of an endpoint is shown and stored nowhere, whatever the endpoint says."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from db.errors import ModelLoadError
from tests.acceptance.mill import Mill
from tests.support.collector import outcomes, request
from tests.support.endpoint import EchoEndpoint, Status
from worker.engine.protocol import EngineConfig, Failed
from worker.engine.registry import create

KEY = "marker-key-of-endpoint"
_SAYS_THE_KEY = Status(
    400, {"x-sent": KEY}, json.dumps({"error": {"message": f"your key is {KEY}"}})
)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("fault", [None, _SAYS_THE_KEY, Status(503, {}, f"<b>{KEY}</b>")], ids=str)
def test_given_a_key_when_a_whole_run_is_over_then_it_is_in_no_output_log_or_database(
    embedded: Mill, fault: Status | None
) -> None:
    file = embedded.folder / "prompts.txt"
    file.write_text("one prompt\n")
    results = embedded.folder / "results.jsonl"
    with EchoEndpoint(key=KEY, faults=lambda number, body: fault) as endpoint:
        options = {"base_url": endpoint.url, "max_retries": "1"}
        embedded.env |= {
            "OPENAI_API_KEY": KEY,
            "PROMPTMILL_ENGINE_OPTIONS": json.dumps(options),
            "PROMPTMILL_LOG_LEVEL": "DEBUG",
            "PROMPTMILL_MAX_ATTEMPTS": "1",
        }
        done = embedded.run(
            "--debug", "run", str(file), "--model", "m", "--engine", "openai", "-o", str(results)
        )
        assert done.returncode == (0 if fault is None else 1), done.stderr
        assert endpoint.authorizations == {f"Bearer {KEY}"}
    said = done.stdout + done.stderr + embedded.run("workers", "--json").stdout
    assert KEY not in said
    logs = _files(embedded.folder / "home" / "logs")
    assert any(b"ready:" in path.read_bytes() for path in logs)
    for path in _files(embedded.folder):
        assert KEY.encode() not in path.read_bytes(), path
    if fault is not None:
        assert "***" in results.read_text()


def test_given_an_engine_when_it_is_looked_at_then_its_key_does_not_show(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    with EchoEndpoint(key=KEY, faults=lambda number, body: _SAYS_THE_KEY) as endpoint:
        config = EngineConfig("m", options={"base_url": endpoint.url})
        engine = create("openai", config)
        info = engine.start()
        (answer,) = outcomes(engine, [request("a", "one")]).values()
        shown = [repr(one) for one in (config, engine, info, answer, engine.stats())]
        shown += [repr(value) for value in vars(engine).values()]
        engine.close()
    assert isinstance(answer, Failed)
    assert "your key is ***" in answer.message
    assert KEY not in "\n".join([*shown, caplog.text])
    assert "openai" in {
        record.name.partition(".")[0] for record in caplog.records
    }  # the libraries did log


def test_given_a_wrong_key_when_started_then_the_refusal_does_not_show_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    file = tmp_path / "key"
    file.write_text(f"{KEY}-but-wrong")
    with EchoEndpoint(key=KEY) as endpoint:
        options = {"base_url": endpoint.url, "api_key_file": str(file)}
        with pytest.raises(ModelLoadError, match="does not accept the key") as caught:
            create("openai", EngineConfig("m", options=options)).start()
    assert str(file) in str(caught.value)
    assert KEY not in str(caught.value) + caplog.text
