"""Ids: what is made is read back, and nothing else is read."""

from __future__ import annotations

import pytest

from db.errors import NotFoundError
from db.ids import job_id, new_uid, parse_id, queue_name


def test_given_many_new_ids_when_read_back_then_each_is_itself_and_none_is_like_another() -> None:
    made = {new_uid() for _ in range(2_000)}
    assert len(made) == 2_000
    for uid in made:
        assert parse_id(uid) == (uid, None)
        assert parse_id(job_id(uid, 42)) == (uid, 42)
        assert not set(uid[1:]) & set("aeiou01l")


def test_given_space_around_an_id_when_read_then_it_is_ignored() -> None:
    assert parse_id("  bk3v9xq2h7mz-7\n") == ("bk3v9xq2h7mz", 7)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "bk3v9xq2h7m",
        "bk3v9xq2h7mzz",
        "ck3v9xq2h7mz",
        "BK3V9XQ2H7MZ",
        "bk3v9xq2h7ma",
        "bk3v9xq2h7m0",
        "bk3v9xq2h7mz-",
        "bk3v9xq2h7mz-0",
        "bk3v9xq2h7mz-007",
        "bk3v9xq2h7mz--1",
        "bk3v9xq2h7mz-1-2",
        "bk3v9xq2h7mz-12345678901",
        "bk3v9xq2h7mz-x",
        "bk3v9xq2h7mz-1٣",
        "bk3v9xq2h7mz\n-1",
    ],
)
def test_given_another_text_when_read_then_the_error_shows_it_and_what_an_id_is_like(
    text: str,
) -> None:
    with pytest.raises(NotFoundError) as failure:
        parse_id(text)
    assert failure.value.message.startswith(f"'{text}' is no batch or job id: ")
    assert "'promptmill list' shows yours" in failure.value.message


@pytest.mark.parametrize(
    ("model", "slug"),
    [
        ("openai-community/gpt2", "openai-community-gpt2"),
        ("gpt2", "gpt2"),
        ("/srv/models/Gemma 3/", "srv-models-gemma-3"),
        ("https://host/a/b/c", "b-c"),
        ("模型", ""),
        ("x" * 100, "x" * 60),
    ],
)
def test_given_a_model_when_its_queue_is_named_then_the_name_is_readable(
    model: str, slug: str
) -> None:
    name = queue_name(model)
    assert name.startswith(f"promptmill.{slug}.")
    assert name == queue_name(model)
    assert len(name) <= 200
    assert name.isascii()


def test_given_models_that_look_alike_when_their_queues_are_named_then_they_differ() -> None:
    models = ["a/b", "a-b", "A/b", "c/a/b", "/a/b", "a/b2"]
    assert len({queue_name(model) for model in models}) == len(models)
