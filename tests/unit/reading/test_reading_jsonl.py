"""JSON Lines: every form of a line, and every way in which one can be bad."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from db.errors import InputError
from producer.reading import BadLine, Line, read


def lines_of(path: Path, content: str | bytes, **options: Any) -> list[Line | BadLine]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read([str(path)], **options))


def requests_of(path: Path, content: str | bytes, **options: Any) -> list[dict[str, Any]]:
    return [line.request for line in lines_of(path, content, **options) if isinstance(line, Line)]


def message_of(path: Path, line: object, **options: Any) -> str:
    """The message about a lone bad line, which stands in line 2, behind a good one."""
    text = line if isinstance(line, str) else json.dumps(line)
    good, bad = lines_of(path, f'"fine"\n{text}\n', **options)
    assert isinstance(good, Line)
    assert isinstance(bad, BadLine)
    assert bad.message.startswith(f"{path}:2: ")
    assert "\n" not in bad.message
    return bad.message


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "prompts.jsonl"


def test_given_each_form_of_a_line_when_read_then_each_becomes_its_canonical_request(
    file: Path,
) -> None:
    content = "\n".join(
        [
            '"Hello"',
            '{"prompt": "Hi", "max_new_tokens": 5, "custom_id": "a", "model": "m"}',
            '{"messages": [{"role": "user", "content": "Hi"}], "params": {"temperature": 0}}',
            '{"custom_id": "b", "method": "POST", "url": "/v1/completions", "body":'
            ' {"model": "x", "prompt": ["P"], "stream": false, "user": "u", "store": false,'
            ' "metadata": {}, "seed": 7, "tools": null}}'.replace(', "tools": null', ""),
        ]
    )
    name = str(file)
    assert lines_of(file, content) == [
        Line(name, 1, {"prompt": "Hello"}),
        Line(name, 2, {"prompt": "Hi", "params": {"max_tokens": 5}}, "a", "m"),
        Line(
            name,
            3,
            {"messages": [{"role": "user", "content": "Hi"}], "params": {"temperature": 0.0}},
        ),
        Line(name, 4, {"prompt": "P", "params": {"seed": 7}}, "b", "x", "/v1/completions"),
    ]


def test_given_blank_lines_crlf_and_a_byte_order_mark_when_read_then_numbers_are_physical(
    file: Path,
) -> None:
    found = lines_of(file, b'\xef\xbb\xbf\r\n"one"\r\n \t\r\n"two"')
    assert [(line.number, line.request) for line in found if isinstance(line, Line)] == [
        (2, {"prompt": "one"}),
        (4, {"prompt": "two"}),
    ]


def test_text_parts_and_a_named_message_are_kept(file: Path) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    chat = {
        "messages": [
            {"role": "user", "content": parts, "name": "Ann", "refusal": None},
            {"role": "assistant", "content": ""},
        ]
    }
    assert requests_of(file, json.dumps(chat)) == [
        {
            "messages": [
                {"role": "user", "content": parts, "name": "Ann"},
                {"role": "assistant", "content": ""},
            ]
        }
    ]


def test_given_a_prompt_of_white_space_when_read_from_json_then_it_is_kept(file: Path) -> None:
    assert requests_of(file, r'{"prompt": "\n "}') == [{"prompt": "\n "}]


def test_given_same_parameters_again_when_read_then_lines_do_not_share_them(file: Path) -> None:
    first, second = requests_of(file, '{"prompt": "a", "n": 2}\n{"prompt": "b", "n": 2}')
    assert first["params"] == second["params"] == {"n": 2}
    assert first["params"] is not second["params"]


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ('{"prompt": "x"', ["broken JSON at column 15", "one whole JSON value a line"]),
        ("hello", ["broken JSON at column 1", 'a "prompt" in quotes']),
        (r'{"prompt": "\ud800"}', ["lone surrogate at column 13", "write the whole pair"]),
        ("7", ["this is a number", "a request is text or an object"]),
        ("null", ["this is null", "text or an object"]),
        ([1], ["this is a list", "text or an object"]),
        ("{}", ["neither 'prompt' nor 'messages'", "give one"]),
        ('""', ["the prompt is empty", "give it text or remove it"]),
        ({"prompt": ""}, ["the prompt is empty", "give it text"]),
        ({"prompt": None}, ["the prompt is null", "must be text"]),
        ({"prompt": 3}, ["the prompt is a number", "must be text"]),
        ({"prompt": True}, ["the prompt is a boolean", "must be text"]),
        ({"prompt": {"a": 1}}, ["the prompt is an object", "must be text"]),
        ({"prompt": "a\0b"}, ["NUL character at position 1", "PostgreSQL", "remove it"]),
        ({"prompt": "a", "messages": []}, ["both 'prompt' and 'messages'", "give one"]),
        ({"text": "a", "url": "u"}, ["has neither 'prompt'", "did you mean 'prompt' by 'text'?"]),
        (
            {"body_text": "a"},
            ["give one of them, or make prompts of its keys, as in --template"],
        ),
        ({"promt": "a"}, ["unknown key 'promt'", "did you mean 'prompt'?"]),
        (
            {"prompt": "a", "temprature": 1},
            ["did you mean 'temperature'? If it is your own data, give --columns temprature"],
        ),
        (
            {"prompt": "a", "suffix": "x"},
            ["'suffix'", "'x'", "not supported, remove it", "data, give --columns suffix"],
        ),
        ({"prompt": "a", "tools": [{}]}, ["'tools'", "only a chat"]),
        ({"prompt": "a", "params": {"top_kk": 1}}, ["'top_kk'", "known are"]),
        ({"prompt": "a", "params": 3}, ["'params' is a number", "must be an object"]),
        ({"prompt": "a", "n": 1, "params": {"n": 1}}, ["'n' is given twice", "keep one"]),
        ({"prompt": "a", "temperature": "hot"}, ["parameter 'temperature'", "'hot'"]),
        ({"prompt": "a", "top_p": 2}, ["parameter 'top_p'", "not 2"]),
        ({"prompt": "a", "stop": "a\0"}, ["parameter 'stop'", "NUL", "remove it"]),
        ({"prompt": "a", "custom_id": True}, ["custom_id is a boolean", "text or a number"]),
        ({"prompt": "a", "custom_id": ""}, ["custom_id has 0 characters", "1 to 256"]),
        ({"prompt": "a", "custom_id": "x" * 257}, ["has 257 characters", "1 to 256"]),
        ({"prompt": "a", "custom_id": "x\0"}, ["custom_id has a NUL", "remove it"]),
        ({"prompt": "a", "model": 3}, ["the model is a number", "name one"]),
        ({"prompt": "a", "model": ""}, ["the model is empty", "name one"]),
        ({"messages": []}, ["'messages' is empty", "at least one"]),
        ({"messages": "hi"}, ["'messages' is text", "a list of messages"]),
        ({"messages": ["hi"]}, ["messages[0] is text", "role and content"]),
        ({"messages": [{"content": "a"}]}, ["messages[0] has no role", "system, developer"]),
        ({"messages": [{"role": "bot", "content": "a"}]}, ["the role 'bot'", "use one of"]),
        ({"messages": [{"role": ["user"], "content": "a"}]}, ["the role ['user']", "use one"]),
        ({"messages": [{"role": "user"}]}, ["messages[0].content is missing", "must be text"]),
        ({"messages": [{"role": "user", "content": None}]}, ["content is null", "be text"]),
        ({"messages": [{"role": "user", "content": []}]}, ["content is an empty list", "be text"]),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            ["messages[0].content[0]", "'image_url'", "only text parts"],
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]},
            ["messages[0].content[0].text is a number", "must be text"],
        ),
        ({"messages": [{"role": "user", "content": [3]}]}, ["content[0] is a number", '"type"']),
        ({"messages": [{"role": "user", "content": "\0"}]}, ["messages[0].content", "NUL"]),
        (
            {"messages": [{"role": "user", "content": "a", "contnt": 1}]},
            ["messages[0]: unknown key 'contnt'", "did you mean 'content'?"],
        ),
        (
            {"messages": [{"role": "user", "content": "a", "name": 1}]},
            ["messages[0].name is a number", "must be text"],
        ),
    ],
)
def test_given_a_bad_line_when_read_then_its_message_says_where_what_and_what_to_do(
    file: Path, line: object, parts: list[str]
) -> None:
    message = message_of(file, line)
    for part in parts:
        assert part in message


def openai_line(**changes: Any) -> dict[str, Any]:
    line = {
        "custom_id": "r1",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"messages": [{"role": "user", "content": "Hi"}]},
    }
    return {key: value for key, value in {**line, **changes}.items() if value != "absent"}


def completion_body(**changes: Any) -> dict[str, Any]:
    return openai_line(url="/v1/completions", body={"prompt": "a", **changes})


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        (openai_line(custom_id="absent"), ["needs a custom_id", "give each line its own"]),
        (openai_line(method="GET"), ["the method is 'GET'", "must be 'POST'"]),
        (openai_line(method="absent"), ["the method is None", "must be 'POST'"]),
        (openai_line(url="/v1/embeddings"), ["'/v1/embeddings'", "with --mode embed"]),
        (openai_line(url="/v1/responses"), ["/v1/responses needs 'input' and no 'messages'"]),
        (openai_line(url="/v1/images"), ["'/v1/images'", "/v1/chat/completions or"]),
        (
            completion_body(max_tokens=0, echo=True, logprobs=1),
            ["'max_tokens' is 0", "with --mode score"],
        ),
        (openai_line(body="absent"), ["the body is null", "must be an object"]),
        (openai_line(body={"prompt": "a"}), ["needs 'messages' and no 'prompt'"]),
        (openai_line(url="/v1/completions"), ["needs 'prompt' and no 'messages'"]),
        (openai_line(bdy=1), ["unknown key 'bdy'", "did you mean 'body'?"]),
        (completion_body(stream=True), ["'stream' is True", "remove it (only false is"]),
        (completion_body(stream=0), ["'stream' is 0", "remove it (only false is"]),
        (completion_body(store=True), ["'store' is True", "remove it (only false is"]),
        (completion_body(prompt=[]), ["the prompt is an empty list", "token ids"]),
        (completion_body(presence_penalty=1), ["'presence_penalty' is 1", "only 0"]),
        (completion_body(response_format={}), ["response_format: its type is one of"]),
        (completion_body(params={}), ["unknown key 'params' in the body", "move it out"]),
        (completion_body(model=4), ["the model is a number", "name one"]),
    ],
)
def test_given_a_bad_openai_line_when_read_then_its_message_says_what_to_do(
    file: Path, line: object, parts: list[str]
) -> None:
    message = message_of(file, line)
    for part in parts:
        assert part in message


def test_given_a_bad_line_with_a_sound_custom_id_when_read_then_the_id_is_kept(file: Path) -> None:
    bad, worse = lines_of(file, '{"custom_id": "a", "prompt": ""}\n{"custom_id": "", "prompt": ""}')
    assert isinstance(bad, BadLine)
    assert isinstance(worse, BadLine)
    assert (bad.custom_id, worse.custom_id) == ("a", None)


def test_given_a_prompt_above_the_limit_when_read_then_the_setting_is_named(file: Path) -> None:
    message = message_of(file, {"prompt": "é" * 6}, max_prompt_bytes=11)
    assert "12 bytes, more than 11" in message
    assert "PROMPTMILL_MAX_PROMPT_BYTES" in message
    assert requests_of(file, '"éé"', max_prompt_bytes=4) == [{"prompt": "éé"}]


def test_given_a_chat_above_the_limit_when_read_then_all_messages_count(file: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "123456"}] * 2}
    assert "the chat has 20 bytes" in message_of(file, chat, max_prompt_bytes=19)


def test_given_a_ten_megabyte_prompt_when_read_then_it_is_one_bad_line(file: Path) -> None:
    message = message_of(file, {"prompt": "x" * 10_485_760})
    assert "10,485,760 bytes, more than 2,097,152" in message


def test_given_batch_defaults_when_a_line_contradicts_them_then_it_is_bad(file: Path) -> None:
    message = message_of(file, {"prompt": "a", "top_logprobs": 3})
    assert "top_logprobs needs logprobs" in message
    found = requests_of(file, '{"prompt": "a", "top_logprobs": 3}', defaults={"logprobs": True})
    assert found == [{"prompt": "a", "params": {"top_logprobs": 3}}]


def test_given_one_json_array_when_read_then_the_file_is_refused_with_a_way_out(
    file: Path,
) -> None:
    with pytest.raises(InputError, match=r"prompts\.jsonl:2: this is one JSON array.*jq"):
        lines_of(file, '\n[{"prompt": "a"}]\n')


def test_given_defaults_that_a_line_must_complete_when_read_then_one_that_does_not_is_bad(
    file: Path,
) -> None:
    defaults = {"retry_invalid": 2, "retry_max_tokens": 100}
    good = '{"prompt": "a", "choice": ["x"], "max_tokens": 50}'
    content = "\n".join([good, '"a text"', '{"prompt": "b"}', '{"prompt": "c", "max_tokens": 50}'])
    first, *rest = lines_of(file, content, defaults=defaults)
    assert isinstance(first, Line)
    reasons = [one.reason for one in rest if isinstance(one, BadLine)]
    assert [reason.partition(" ")[0] for reason in reasons] == [
        "retry_max_tokens", "retry_max_tokens", "retry_invalid",
    ]  # fmt: skip
    (row,) = lines_of(file, '{"a": 1}', defaults={"retry_invalid": 2}, template="{a}")
    assert isinstance(row, BadLine)
    assert "needs a structure" in row.reason
