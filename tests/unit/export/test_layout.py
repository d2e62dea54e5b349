"""Which columns a record has, and under which names."""

from __future__ import annotations

import pytest

from db.errors import UsageError
from db.input_columns import InputColumn
from db.modes import Mode
from db.sample_counts import SampleCounts
from producer.export.answer_fields import AnswerField, Expansion, FieldType
from producer.export.layout import Layout, RecordOptions, check_names, layout_of
from tests.support.results import batch

LEAN = [
    "id", "custom_id", "state", "text", "finish_reason", "prompt_tokens", "completion_tokens",
    "error",
]  # fmt: skip
REVIEW = (InputColumn("id", "int64"), InputColumn("review", "string"))


def names(layout: Layout) -> list[str]:
    return [column.name for column in layout.columns]


def test_lean_record_has_what_the_batch_has() -> None:
    assert names(layout_of(batch(), RecordOptions(), documents=True)) == LEAN
    counts = SampleCounts(samples=2, with_reasoning=1, with_tool_calls=1, with_logprobs=1)
    several = layout_of(batch(sample_counts=counts), RecordOptions(), documents=False)
    assert names(several) == [
        "id", "custom_id", "state", "sample", "text", "reasoning", "tool_calls", "finish_reason",
        "prompt_tokens", "completion_tokens", "logprobs", "error_code", "error_message",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "own"), [(Mode.SCORE, ["logprob", "perplexity"]), (Mode.EMBED, ["embedding"])]
)
def test_record_of_a_mode_has_its_measure_and_no_text(mode: Mode, own: list[str]) -> None:
    layout = layout_of(batch(mode=mode), RecordOptions(), documents=True)
    assert names(layout) == ["id", "custom_id", "state", *own, *LEAN[5:]]


def test_provenance_comes_behind_the_lean_record() -> None:
    layout = layout_of(batch(), RecordOptions(provenance=True), documents=True)
    assert names(layout)[:9] == [*LEAN[:3], "sample", *LEAN[3:]]
    assert names(layout)[9:12] == ["line", "model", "revision"]
    assert {"seed", "params", "worker"} < set(names(layout))


def test_input_columns_come_first_and_keep_their_names() -> None:
    layout = layout_of(batch(input_columns=REVIEW), RecordOptions(), documents=True)
    assert names(layout) == ["id", "review", "promptmill_id", *LEAN[1:]]
    (remark,) = layout.remarks()
    assert remark.startswith("'id' is written as 'promptmill_id', as the input has a column of")


def test_swapped_names_of_a_column_are_shown_the_right_way_round() -> None:
    with pytest.raises(UsageError, match=r"it is OLD=NEW: did you mean text=label\?"):
        check_names(RecordOptions(names={"label": "text"}), documents=True)


def test_prefix_is_repeated_until_the_name_is_free() -> None:
    both = (InputColumn("text", "string"), InputColumn("promptmill_text", "string"))
    layout = layout_of(batch(input_columns=both), RecordOptions(), documents=True)
    assert "promptmill_promptmill_text" in names(layout)


@pytest.mark.parametrize(("chosen", "first"), [((), LEAN[:1]), (("review",), ["review", "id"])])
def test_input_columns_are_selected(chosen: tuple[str, ...], first: list[str]) -> None:
    options = RecordOptions(input_columns=chosen)
    layout = layout_of(batch(input_columns=REVIEW), options, documents=True)
    assert names(layout)[: len(first)] == first
    assert layout.remarks() == []


def test_unknown_input_column_is_refused_with_those_there_are() -> None:
    with pytest.raises(
        UsageError, match="'nope' is no column of the batch's input: it has id, rev"
    ):
        layout_of(
            batch(input_columns=REVIEW), RecordOptions(input_columns=["nope"]), documents=True
        )


def test_output_column_is_renamed() -> None:
    options = RecordOptions(names={"text": "label", "id": "job"})
    layout = layout_of(batch(input_columns=REVIEW), options, documents=True)
    assert names(layout)[:6] == ["id", "review", "job", "custom_id", "state", "label"]
    assert layout.remarks() == []


@pytest.mark.parametrize(
    ("renamed", "message"),
    [
        ({"txt": "a"}, "there is no column 'txt': it is one of prompt"),
        ({"text": "state"}, "another column has the name 'state'"),
        ({"text": "review"}, "another column has the name 'review'"),
        ({"text": "a", "state": "a"}, "another column has the name 'a'"),
        ({"text": " "}, "give a name behind the '='"),
        ({"seed": "a"}, "it is only written with --provenance"),
        ({"error_code": "a"}, "JSON Lines have it as 'error'"),
    ],
)
def test_bad_output_column_is_refused(renamed: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        layout_of(batch(input_columns=REVIEW), RecordOptions(names=renamed), documents=True)


def test_column_that_is_absent_today_may_be_renamed() -> None:
    options = RecordOptions(names={"reasoning": "why"})
    assert names(layout_of(batch(), options, documents=True)) == LEAN


def test_answer_fields_come_last_and_are_prefixed_where_they_clash() -> None:
    fields = (AnswerField("label", FieldType.TEXT), AnswerField("review", FieldType.TEXT))
    layout = layout_of(
        batch(input_columns=REVIEW), RecordOptions(), documents=True, expansion=Expansion(fields)
    )
    assert names(layout)[-2:] == ["label", "promptmill_review"]
