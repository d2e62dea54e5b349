"""CSV, TSV and parquet, with and without a template."""

from __future__ import annotations

import datetime
import gzip
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from db.errors import InputError
from producer.reading import BadLine, Line, parquet_table, read


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def of_csv(content: str | bytes, name: str = "a.csv", **options: Any) -> list[Line | BadLine]:
    Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read([name], **options))


def of_parquet(columns: dict[str, Any], **options: Any) -> list[Line | BadLine]:
    pq.write_table(pa.table(columns), "a.parquet")
    return list(read(["a.parquet"], **options))


def requests(found: list[Line | BadLine]) -> list[dict[str, Any]]:
    return [line.request for line in found if isinstance(line, Line)]


def messages(found: list[Line | BadLine]) -> list[str]:
    return [line.message for line in found if isinstance(line, BadLine)]


def test_given_a_csv_of_requests_when_read_then_cells_get_their_types(here: Path) -> None:
    found = of_csv(
        "prompt,custom_id,model,max_tokens,temperature,stop,stop_token_ids\r\n"
        '"a, ""b""\nc",7,,30.0,0.5,1,"[1, 2]"\r\n'
        '12,,m,,,"[""x"", ""y""]",\r\n'
    )
    first = {"max_tokens": 30, "temperature": 0.5, "stop": ["1"], "stop_token_ids": [1, 2]}
    assert found == [
        Line("a.csv", 1, {"prompt": 'a, "b"\nc', "params": first}, "7"),
        Line("a.csv", 2, {"prompt": "12", "params": {"stop": ["x", "y"]}}, None, "m"),
    ]


def test_given_a_tsv_with_a_byte_order_mark_when_read_then_the_header_is_clean(here: Path) -> None:
    assert requests(of_csv(b"\xef\xbb\xbfprompt\tn\na,b\t2\n\n", "a.tsv")) == [
        {"prompt": "a,b", "params": {"n": 2}}
    ]


def test_given_bad_records_when_read_then_records_are_numbered_after_the_header(
    here: Path,
) -> None:
    found = of_csv("prompt,n\n,1\na\nb,1,2\nc,x\nd,1\n")
    empty, few, many, bad = messages(found)
    assert empty == "a.csv: record 1: the prompt is empty: give it text or remove it"
    assert few.startswith("a.csv: record 2: has 1 cells where the header has 2: add the missing")
    assert many.startswith("a.csv: record 3: has 3 cells where the header has 2")
    assert bad.startswith("a.csv: record 4: parameter 'n'")
    assert requests(found) == [{"prompt": "d", "params": {"n": 1}}]


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ('prompt\n"a\nb\n', ["a.csv:2: broken CSV", "never closed", "--quoting none"]),
        ('prompt\n"a\nb"c\n', ["a.csv:2: broken CSV", "doubled inside a cell"]),
        ("prompt,prompt\na,b\n", ["a.csv: the column 'prompt' is there twice", "rename one"]),
        ("text,lang\na,b\n", ["a.csv: no column 'prompt' among 'text', 'lang'", "--template"]),
        (
            "prompt,temprature\na,1\n",
            [
                "a.csv: the column 'temprature'",
                "did you mean 'temperature'?",
                "--columns temprature",
            ],
        ),
    ],
)
def test_given_a_csv_that_cannot_work_when_read_then_the_file_is_refused(
    here: Path, content: str, parts: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        of_csv(content)
    for part in parts:
        assert part in caught.value.message
    assert "\n" not in caught.value.message


def test_given_a_csv_cell_above_the_module_default_when_read_then_it_is_read(here: Path) -> None:
    assert requests(of_csv(f"prompt\n{'x' * 200_000}\n")) == [{"prompt": "x" * 200_000}]


def test_given_a_quote_that_never_closes_when_the_file_is_large_then_reading_stops(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"a\.csv:\d+: broken CSV: field larger.*quote"):
        of_csv('prompt\n"' + "many words\n" * 1_600_000)


def test_given_a_template_when_columns_exist_then_prompts_are_filled(here: Path) -> None:
    found = of_csv(
        "text,lang,custom_id,junk\nHallo,de,x,1\n,fr,y,2\n", template="{{{lang}}} {text}!"
    )
    assert requests(found) == [{"prompt": "{de} Hallo!"}]
    assert [line.custom_id for line in found] == ["x", "y"]
    assert messages(found) == [
        "a.csv: record 2: column 'text' is empty: the template needs a value, fill or skip it"
    ]


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_given_a_template_when_a_column_is_missing_then_existing_ones_are_named(
    here: Path, name: str
) -> None:
    Path("a.csv").write_text("text,lang\na,b\n")
    pq.write_table(pa.table({"text": ["a"], "lang": ["b"]}), "a.parquet")
    with pytest.raises(InputError) as caught:
        list(read([name], template="{txt}"))
    assert caught.value.message == (
        f"{name}: no column 'txt' for the template: there are 'text', 'lang'"
    )


def test_given_a_template_when_a_text_file_is_read_then_its_column_is_text(here: Path) -> None:
    Path("a.txt").write_text("Hallo\n")
    assert requests(list(read(["a.txt"], template="Translate: {text}"))) == [
        {"prompt": "Translate: Hallo"}
    ]
    with pytest.raises(InputError, match=r"a\.txt: no column 'x' for the template.*'text'"):
        list(read(["a.txt"], template="{x}"))


def test_given_a_template_when_jsonl_rows_are_read_then_every_key_is_a_column(here: Path) -> None:
    Path("a.jsonl").write_text(
        '{"prompt": "p", "temperature": "warm", "custom_id": "1"}\n{"prompt": "q"}\n"s"\n'
    )
    found = list(read(["a.jsonl"], template="{prompt} is {temperature}"))
    columns = '["p","warm"]'
    assert found[0] == Line("a.jsonl", 1, {"prompt": "p is warm"}, "1", columns=columns)
    assert messages(found) == [
        "a.jsonl:2: no column 'temperature' for the template: there are 'prompt'",
        "a.jsonl:3: no column 'prompt' for the template: there are 'text'",
    ]


def test_given_a_parquet_of_requests_when_read_then_gaps_are_not_given(here: Path) -> None:
    found = of_parquet(
        {
            "prompt": pa.array(["a", "b", None]).dictionary_encode(),
            "custom_id": ["x", None, "z"],
            "max_tokens": [30.0, None, None],
            "temperature": [float("nan"), 0.5, None],
        }
    )
    assert found == [
        Line("a.parquet", 1, {"prompt": "a", "params": {"max_tokens": 30}}, "x"),
        Line("a.parquet", 2, {"prompt": "b", "params": {"temperature": 0.5}}),
        BadLine("a.parquet", 3, "the prompt is null: it must be text, in quotes", "z", "row"),
    ]
    assert messages(found) == ["a.parquet: row 3: the prompt is null: it must be text, in quotes"]


def test_given_messages_in_parquet_when_read_then_each_row_is_a_chat(here: Path) -> None:
    chat = [{"role": "user", "content": "a", "name": None}]
    found = of_parquet({"messages": [chat, [], None], "prompt": [None, None, "p"]})
    assert requests(found) == [
        {"messages": [{"role": "user", "content": "a"}]},
        {"prompt": "p"},
    ]
    assert messages(found) == ["a.parquet: row 2: 'messages' is empty: give at least one message"]


def test_given_typed_cells_when_a_template_is_filled_then_values_are_plain(here: Path) -> None:
    found = of_parquet(
        {
            "i": [1],
            "f": [0.5],
            "b": [True],
            "d": [Decimal("1.50")],
            "t": [datetime.date(2026, 1, 2)],
        },
        template="{i} {f} {b} {d} {t}",
    )
    assert requests(found) == [{"prompt": "1 0.5 true 1.50 2026-01-02"}]


def test_given_cells_that_are_no_text_when_a_template_is_filled_then_they_are_named(
    here: Path,
) -> None:
    found = (
        of_parquet({"c": [["a"], None]}, template="{c}")
        + of_parquet({"c": [b"\xff"]}, template="{c}")
        + of_parquet({"c": [float("nan")]}, template="{c}")
    )
    assert [message.split(": ", 2)[2] for message in messages(found)] == [
        "column 'c' is a list: a template takes text and numbers",
        "column 'c' is empty: the template needs a value, fill or skip it",
        "column 'c' is binary data and not UTF-8 text: convert it to strings",
        "column 'c' is empty: the template needs a value, fill or skip it",
    ]


def test_given_many_rows_in_one_group_when_read_then_batches_are_bounded(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_table, "_BATCH_BYTES", 1000)
    found = of_parquet({"prompt": [f"{number:0100}" for number in range(1, 501)]})
    assert [line.number for line in found] == list(range(1, 501))
    assert requests(found)[-1] == {"prompt": f"{500:0100}"}


@pytest.mark.parametrize("name", ["a", "a.data", "a.pq", "a.parquet.gz"])
def test_given_parquet_under_any_name_when_read_then_it_is_known(here: Path, name: str) -> None:
    pq.write_table(pa.table({"prompt": ["x", "y"]}), "plain")
    content = Path("plain").read_bytes()
    Path(name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert requests(list(read([name]))) == [{"prompt": "x"}, {"prompt": "y"}]


def test_given_text_under_a_parquet_name_when_read_then_it_is_told(here: Path) -> None:
    Path("a.parquet").write_text('{"prompt": "x"}\n' * 9)
    with pytest.raises(InputError) as caught:
        list(read(["a.parquet"]))
    assert caught.value.message.startswith("a.parquet: not a parquet file (it starts with")
    assert caught.value.message.endswith(
        "give it the suffix of what it is, as .jsonl, .csv or .txt"
    )


def test_given_a_truncated_parquet_when_read_then_copying_again_is_advised(here: Path) -> None:
    pq.write_table(pa.table({"prompt": ["a"] * 99}), "a.parquet")
    content = Path("a.parquet").read_bytes()
    for size in (5, len(content) // 2, len(content) - 1):
        Path("a.parquet").write_bytes(content[:size])
        with pytest.raises(InputError, match=r"a\.parquet: ends early: .* cut off, copy it again"):
            list(read(["a.parquet"]))


def test_given_a_damaged_parquet_when_read_then_it_is_an_input_error(here: Path) -> None:
    Path("a.parquet").write_bytes(b"PAR1" + b"\7" * 99 + b"\x20\0\0\0PAR1")
    with pytest.raises(InputError, match=r"a\.parquet: can't be read as parquet \(.*write the"):
        list(read(["a.parquet"]))


def test_given_a_column_name_that_is_no_utf8_when_read_then_it_is_an_input_error(
    here: Path,
) -> None:
    pq.write_table(pa.table({"prompt": ["a"]}), "a.parquet")
    content = Path("a.parquet").read_bytes()
    Path("a.parquet").write_bytes(content.replace(b"prompt", b"\xffrompt"))
    with pytest.raises(InputError, match=r"a\.parquet: can't be read as parquet \(.*write the"):
        list(read(["a.parquet"]))


def test_given_a_prompt_column_of_numbers_when_read_then_its_type_is_named(here: Path) -> None:
    with pytest.raises(InputError, match=r"a\.parquet: the column 'prompt' holds int64, not text"):
        of_parquet({"prompt": [1, 2]})


@pytest.mark.parametrize(
    ("kind", "prompt", "request_"),
    [
        (pa.list_(pa.int32()), [5, 6], {"prompt": [5, 6]}),
        (pa.large_list(pa.uint64()), [5, 6], {"prompt": [5, 6]}),
        (pa.list_(pa.string()), ["one", "two"], {"prompts": ["one", "two"]}),
        (pa.list_(pa.list_(pa.int64())), [[5, 6], [7]], {"prompts": [[5, 6], [7]]}),
        (pa.list_(pa.int16(), 2), [5, 6], {"prompt": [5, 6]}),
    ],
)
def test_prompt_column_of_lists_is_token_ids_or_prompts(
    here: Path, kind: pa.DataType, prompt: Any, request_: dict[str, Any]
) -> None:
    rows = of_parquet({"prompt": pa.array([prompt, None], kind), "n": [2, None]})
    assert requests(rows) == [{**request_, "params": {"n": 2}}]
    (message,) = messages(rows)
    assert message.startswith("a.parquet: row 2: the prompt is ")


@pytest.mark.parametrize("kind", [pa.float64(), pa.list_(pa.string()), pa.bool_()], ids=str)
def test_prompt_column_of_other_lists_is_refused(here: Path, kind: pa.DataType) -> None:
    with pytest.raises(InputError, match="the column 'prompt' holds list<"):
        of_parquet({"prompt": pa.array([None], pa.list_(kind))})


def test_given_invalid_utf8_in_parquet_when_read_then_the_row_is_named(here: Path) -> None:
    offsets = pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0")
    broken = pa.StringArray.from_buffers(2, offsets, pa.py_buffer(b"a\xff"))
    found = of_parquet({"prompt": broken})
    assert requests(found) == [{"prompt": "a"}]
    assert messages(found) == [
        "a.parquet: row 2: column 'prompt' is not UTF-8 text: write the file again as UTF-8"
    ]


def test_given_a_date_beyond_python_when_a_template_is_filled_then_the_row_is_named(
    here: Path,
) -> None:
    dates = pa.array([0, 2**30], pa.int32()).cast(pa.date32())
    found = of_parquet({"d": dates}, template="{d}")
    assert requests(found) == [{"prompt": "1970-01-01"}]
    (message,) = messages(found)
    assert message.startswith("a.parquet: row 2: column 'd' can't be read")
    assert message.endswith("convert it to strings")


def test_given_a_parquet_without_rows_when_read_then_it_is_empty(here: Path) -> None:
    with pytest.raises(InputError, match=r"a\.parquet: is empty: give it at least one request"):
        of_parquet({"prompt": pa.array([], pa.string())})
