"""The files in examples/ are valid, and as examples/README.md says."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from producer.reading import BadLine, Line, read
from tests.support.command_line import parse

EXAMPLES = Path(__file__).parents[2] / "examples"
README = (EXAMPLES / "README.md").read_text("utf-8")


def lines_of(name: str, template: str | None = None) -> list[Line]:
    """Every line of an example; none may be bad."""
    lines = list(read([str(EXAMPLES / name)], template=template))
    assert not [line for line in lines if isinstance(line, BadLine)]
    return [line for line in lines if isinstance(line, Line)]


def test_the_demo_begins_with_the_hello_of_a_language_model() -> None:
    with (EXAMPLES / "prompts.jsonl").open("rb") as file:
        assert json.loads(file.readline()) == {
            "prompt": "Hello, I'm a language model,",
            "max_length": 30,
        }


def test_the_demo_is_as_large_as_the_readme_says_and_small_enough_for_a_laptop() -> None:
    lines = lines_of("prompts.jsonl")
    count = re.search(r"(\d+) prompts for a base model", README)
    assert count is not None
    assert len(lines) == int(count[1])
    tokens = sum(
        params.get("max_tokens", params.get("max_length", 0)) * params.get("n", 1)
        for params in (line.request["params"] for line in lines)
    )
    assert tokens < 1000


def test_every_line_but_the_first_is_named_and_repeats_itself() -> None:
    first, *rest = lines_of("prompts.jsonl")
    assert first.custom_id is None
    names = [line.custom_id for line in rest]
    assert None not in names
    assert len(set(names)) == len(names)
    for line in rest:
        params = line.request["params"]
        assert params["temperature"] == 0 or "seed" in params, line.custom_id


def test_the_chats_are_lines_of_an_openai_batch_file() -> None:
    lines = lines_of("chat.jsonl")
    assert len(lines) == 5
    assert all("messages" in line.request for line in lines)
    assert {line.model for line in lines} == {"Qwen/Qwen2.5-0.5B-Instruct"}


def test_the_reviews_fill_the_template_of_the_readme() -> None:
    (command,) = [words for words in commands() if "examples/reviews.csv" in words]
    template = command[command.index("--template") + 1].removeprefix("$").replace("\\n", "\n")
    lines = lines_of("reviews.csv", template)
    assert len(lines) == 12
    assert lines[0].custom_id == "review-01"
    assert lines[0].request["prompt"] == (
        "Review: The kettle boils in two minutes and hardly makes a sound.\nPositive or negative:"
    )


def test_the_orders_are_a_table_of_300_rows_and_five_columns() -> None:
    lines = lines_of("orders.csv", "{review}")
    assert len(lines) == 300
    assert {len(json.loads(line.columns or "[]")) for line in lines} == {5}


def test_comments_are_three_rows_of_three_columns_with_a_valid_schema() -> None:
    lines = lines_of("comments.csv", "{comment}")
    columns = [json.loads(line.columns or "[]") for line in lines]
    assert [row[0] for row in columns] == ["0017", "0018", "0019"]
    assert {len(row) for row in columns} == {3}
    schema = json.loads((EXAMPLES / "comments.schema.json").read_text("utf-8"))
    assert set(schema["required"]) == set(schema["properties"])


def test_lines_of_adapters_name_those_of_the_readme() -> None:
    (command,) = [words for words in commands() if "examples/adapters.jsonl" in words]
    options = [command[at + 1] for at, word in enumerate(command) if word == "--adapter"]
    assert [line.model for line in lines_of("adapters.jsonl")] == options


def test_every_command_of_the_readme_is_one_that_the_program_takes() -> None:
    assert len(commands()) == 7
    for words in commands():
        parse(words)


def commands() -> list[list[str]]:
    return [shlex.split(line) for line in re.findall(r"^`promptmill (.*)`$", README, re.MULTILINE)]


@pytest.mark.parametrize(
    "name",
    [
        "prompts.jsonl",
        "tour.jsonl",
        "chat.jsonl",
        "reviews.csv",
        "orders.csv",
        "comments.csv",
        "comments.schema.json",
        "adapters.jsonl",
        "fetch_weights.py",
        "fetch_chat_model.py",
    ],
)
def test_every_example_is_in_the_readme(name: str) -> None:
    assert f"**`{name}`**" in README
    assert (EXAMPLES / name).is_file()
