"""The header of a GGUF file, whole and broken in every way that a stranger could think of."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from db.gguf import BLOCKS, BrokenGguf, files_in, hub_file, local_file, part, read_header

gguf = pytest.importorskip("gguf")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(made, "llama")
    writer.add_context_length(256)
    writer.add_token_list(["a", "bc", "ä"])
    writer.add_array("some.numbers", [1, 2, 3])
    writer.add_chat_template("{{ messages }}")
    writer.add_tensor("a.weight", np.arange(12, dtype=np.float32).reshape(3, 4))
    writer.add_tensor("b.weight", np.zeros(8, np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return made


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def start(pairs: int, *, tensors: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, pairs)


def test_given_a_file_when_read_then_metadata_and_tensors_are_told_and_nothing_else_is_read(
    file: Path,
) -> None:
    header = read_header(file)
    assert header.architecture == "llama"
    assert header.metadata["llama.context_length"] == 256
    assert header.metadata["tokenizer.chat_template"] == "{{ messages }}"
    assert header.metadata["tokenizer.ggml.tokens"] == 3
    assert header.metadata["some.numbers"] == 3
    assert header.parameters == 20
    assert header.parts == 1
    first = header.tensors[0]
    numbers = np.fromfile(file, np.float32, 12, offset=header.data_start + first.offset)
    assert (first.name, numbers.tolist()) == ("a.weight", list(range(12)))
    asked = read_header(file, ("tokenizer.ggml.tokens",))
    assert asked.metadata["tokenizer.ggml.tokens"] == ["a", "bc", "ä"]


def test_given_another_header_or_size_when_digested_then_it_is_another_and_numbers_do_not_count(
    file: Path,
) -> None:
    before = read_header(file).digest
    assert len(before) == 12
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert read_header(file).digest == before
    file.write_bytes(content + b"\0")
    grown = read_header(file).digest
    file.write_bytes(content.replace(b"{{ messages }}", b"{{ MESSAGES }}"))
    assert len({before, grown, read_header(file).digest}) == 3


def test_given_a_file_cut_off_anywhere_when_read_then_it_says_so(file: Path) -> None:
    content = file.read_bytes()
    padding = 16  # behind the last tensor, which nobody misses
    for length in range(0, len(content) - padding, 7):
        file.write_bytes(content[:length])
        with pytest.raises(BrokenGguf, match=r"cut off|is empty|begin with GGUF"):
            read_header(file)


@pytest.mark.parametrize(
    ("content", "part_of"),
    [
        (b"", "it is empty"),
        (b"PK\x03\x04 and more", "does not begin with GGUF"),
        (start(0, version=1), "GGUF version 1"),
        (start(0, version=1 << 24), "GGUF version"),
        (start(2**63), "cut off"),
        (start(0, tensors=2**63), "cut off"),
        (start(1) + struct.pack("<Q", 2**63), "cut off"),
        (start(1) + text("k") + struct.pack("<I", 99), "value of type 99"),
        (start(1) + text("k") + struct.pack("<IIQ", 9, 4, 2**62), "cut off"),
        (start(1) + text("k") + struct.pack("<IIQ", 9, 8, 2**62), "cut off"),
        (start(1) + text("k") + struct.pack("<IIQ", 9, 9, 1) * 1000, "array of type 9"),
        (start(0, tensors=1) + text("t") + struct.pack("<I", 2**31), "2147483648 dimensions"),
        (
            start(0, tensors=1) + text("t") + struct.pack("<I2QIQ", 2, 2**40, 2**40, 0, 0),
            "its tensors need",
        ),
        (start(0, tensors=1) + text("t") + struct.pack("<IQIQ", 1, 1, 0, 2**60), "cut off"),
    ],
)
def test_given_what_is_no_gguf_file_when_read_then_one_line_says_why(
    tmp_path: Path, content: bytes, part_of: str
) -> None:
    file = tmp_path / "bad.gguf"
    file.write_bytes(content)
    with pytest.raises(BrokenGguf) as caught:
        read_header(file)
    assert part_of in str(caught.value)
    assert "\n" not in str(caught.value)


def test_given_the_sizes_of_blocks_when_compared_then_they_are_those_of_ggml() -> None:
    known = {int(kind): size for kind, size in gguf.GGML_QUANT_SIZES.items()}
    assert {kind: BLOCKS.get(kind) for kind in known} == known


def test_given_names_when_asked_then_files_of_the_hub_and_parts_are_told_apart() -> None:
    assert hub_file("org/name:model.gguf") == ("org/name", "model.gguf")
    assert hub_file("org/name:Q4/model.GGUF") == ("org/name", "Q4/model.GGUF")
    for other in ("org/name", "llama3:8b", "/models/a.gguf", "a.gguf", ":a.gguf"):
        assert hub_file(other) is None
    assert part("m-00001-of-00003.gguf") == (1, 3)
    assert part("m-1-of-3.gguf") is None


def test_given_a_folder_when_asked_for_its_file_then_it_is_the_only_one_without_safetensors(
    tmp_path: Path,
) -> None:
    def there(*names: str) -> Any:
        for name in names:
            (tmp_path / name).touch()
        return local_file(tmp_path)

    assert there("config.json") is None
    assert there("model.Q4_K_M.gguf", "mmproj-model.gguf") == tmp_path / "model.Q4_K_M.gguf"
    assert there("other.gguf") is None
    assert [file.name for file in files_in(tmp_path)] == ["model.Q4_K_M.gguf", "other.gguf"]
    assert local_file(tmp_path / "other.gguf") == tmp_path / "other.gguf"
    assert local_file(tmp_path / "config.json") is None
    (tmp_path / "other.gguf").unlink()
    assert there("model.safetensors") is None
