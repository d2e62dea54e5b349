"""One GGUF file as a checkpoint: found, judged by its header, and loaded as an ordinary model.

transformers unpacks the weights into plain ones of the wanted dtype and builds the tokenizer from
the file's metadata. Nothing that lies beside the file is looked at.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
import transformers
from huggingface_hub.errors import EntryNotFoundError
from tokenizers import Tokenizer

from db.errors import ModelLoadError
from db.extras import install_command
from db.gguf import (
    BrokenGguf,
    Header,
    files_in,
    hub_file,
    is_gguf,
    local_file,
    part,
    read_header,
)
from worker.engine.protocol import EngineConfig
from worker.engine.shared.chat_template import ChatTemplate
from worker.engine.shared.load_progress import Counted
from worker.engine.shared.metadata import LOAD_ERRORS, check_tokenizer, one_line
from worker.engine.shared.turn_ends import turn_ends
from worker.engine.transformers.gguf.gaps import check_all_read, fill_config, scale_rope
from worker.engine.transformers.gguf.reading import quick_reader

#: A file's name where transformers looks for it.
_NAME = "model.gguf"

_END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")


def find(config: EngineConfig) -> Path | None:
    """The file that the model's name means, fetched if need be; None: it means something else.

    Raises ModelLoadError where it means one that can't be had.
    """
    model = config.model
    if (there := hub_file(model)) is not None:
        return _fetched(config, *there)
    path = Path(model).expanduser()
    if is_gguf(model) and not path.exists():
        raise ModelLoadError(
            f"GGUF file '{model}' does not exist: check the path; one of the hub is named "
            "org/name:file.gguf"
        )
    found = local_file(path)
    if found is None and path.is_dir() and not any(path.glob("*.safetensors")):
        several = files_in(path)
        if several:
            names = ", ".join(file.name for file in several[:4])
            raise ModelLoadError(
                f"model folder '{model}' holds {len(several)} GGUF files ({names}): name the one "
                f"to load, as in {path / several[0].name}"
            )
    return found


def judged(model: str, file: Path) -> Header:
    """The header of a file that can be loaded here. Raises ModelLoadError with the reason."""
    if find_spec("gguf") is None:
        raise ModelLoadError(
            f"model '{model}' is a GGUF file, and the package 'gguf' is not installed: "
            f"{install_command('worker', 'gguf')}"
        )
    try:
        header = read_header(file)
    except BrokenGguf as error:
        raise ModelLoadError(
            f"GGUF file '{model}' can't be read, as {error}: download it again"
        ) from None
    except OSError as error:
        raise ModelLoadError(f"GGUF file '{model}' can't be read: {error.strerror}") from error
    of = part(file.name)
    if header.parts > 1 or of is not None:
        count = header.parts if of is None else of[1]
        raise ModelLoadError(
            f"GGUF file '{model}' is one of {count} parts of a model, and transformers reads whole "
            "files only: join them with llama.cpp's llama-gguf-split --merge"
        )
    if header.architecture not in _architectures():
        raise ModelLoadError(
            f"GGUF file '{model}' is of architecture '{header.architecture[:60]}', which "
            "transformers can't read from a GGUF: use the model's safetensors"
        )
    return header


def load(
    model: str, file: Path, header: Header, dtype: torch.dtype | str
) -> tuple[Any, dict[str, Any], Any]:
    """Model on the host, transformers' report of its loading, and tokenizer.

    Raises ModelLoadError, and what transformers raises.
    """
    _silence()
    with _alone(file) as folder, quick_reader():
        named = {"gguf_file": _NAME, "trust_remote_code": False}
        shape = transformers.AutoConfig.from_pretrained(folder, **named)
        fill_config(model, shape, header)
        kind = (
            transformers.AutoModelForSeq2SeqLM
            if shape.is_encoder_decoder
            else transformers.AutoModelForCausalLM
        )
        loaded, report = kind.from_pretrained(
            folder,
            config=shape,
            # Packed weights would need kernels that are fetched from the hub as code.
            quantization_config=transformers.GgufConfig(dequantize=True),
            dtype=torch.bfloat16 if dtype == "auto" else dtype,
            output_loading_info=True,
            **named,
        )
        check_all_read(model, loaded, header)
        scale_rope(model, loaded, header, file)
        return loaded, report, _tokenizer(model, folder, header)


def end_ids(header: Header, tokenizer: Any) -> frozenset[int]:
    """Ids that end a text, of a chat or not: those that the file names, and its ends of turns."""
    named = {header.metadata.get(f"tokenizer.ggml.{key}") for key in _END_KEYS}
    ids = {one for one in named if isinstance(one, int)}
    return turn_ends(tokenizer, ChatTemplate(tokenizer)) | ids


def revision(model: str, file: Path, header: Header) -> str:
    """A digest of the user's own file; of the hub's the commit, which names its snapshot."""
    there = hub_file(model)
    return header.digest if there is None else file.parents[there[1].count("/")].name


def _fetched(config: EngineConfig, repository: str, file: str) -> Path:
    """The hub's file in its cache, at the wanted revision."""
    if Path(repository).is_dir():
        raise ModelLoadError(
            f"model '{config.model}': {repository} is a folder here: name its file as "
            f"{Path(repository) / file}"
        )
    try:
        found = huggingface_hub.hf_hub_download(repository, file, revision=config.revision)
    except (EntryNotFoundError, *LOAD_ERRORS) as error:
        revision = f" at revision '{config.revision}'" if config.revision else ""
        raise ModelLoadError(
            f"GGUF file '{config.model}'{revision} can't be had from the hub "
            f"({type(error).__name__}): check repository, file and revision, the network and, for "
            "a gated model, HF_TOKEN"
        ) from error
    return Path(found)


@contextmanager
def _alone(file: Path) -> Iterator[str]:
    """A folder with nothing but the file: what lies beside it is of another model, or a stranger's.

    transformers would read a tokenizer, a template and an adapter from there.
    """
    with tempfile.TemporaryDirectory(prefix="promptmill-gguf-") as folder:
        (Path(folder) / _NAME).symlink_to(file.resolve())
        yield folder


def _tokenizer(model: str, folder: str, header: Header) -> Any:
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=_NAME)
    except LOAD_ERRORS as error:
        raise ModelLoadError(
            f"GGUF file '{model}' has no tokenizer that transformers can read "
            f"({one_line(error)}): use the model's safetensors"
        ) from error
    check_tokenizer(model, tokenizer)
    return _within(tokenizer, header.metadata.get("tokenizer.ggml.tokens", 0))


def _within(tokenizer: Any, vocabulary: int) -> Any:
    """Without the tokens that transformers' class adds of itself: the model has none for them.

    A prompt that spells one of them would be read beyond the embedding's last row.
    """
    told = json.loads(tokenizer.backend_tokenizer.to_str())
    kept = [token for token in told["added_tokens"] if token["id"] < vocabulary]
    if len(kept) == len(told["added_tokens"]):
        return tokenizer
    told["added_tokens"] = kept
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(told)),
        chat_template=tokenizer.chat_template,
        clean_up_tokenization_spaces=False,
        **{
            name: token
            for name, token in tokenizer.special_tokens_map.items()
            if isinstance(token, str) and token in {one["content"] for one in kept}
        },
    )


def _architectures() -> set[str]:
    """llama.cpp's names of what transformers reads."""
    from transformers.integrations.gguf import GGUF_CONFIG_ARCHS
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    others = {"qwen2moe", "qwen3moe", "gpt-oss", "minimax-m2"}
    not_models = {"general", "tokenizer", "t5encoder"}
    return {*GGUF_CONFIG_ARCHS, *GGUF_SUPPORTED_ARCHITECTURES, *others} - not_models


def _silence() -> None:
    """No progress bar in a worker's log: no switch of transformers' turns this one off."""
    from transformers import modeling_gguf_pytorch_utils

    modeling_gguf_pytorch_utils.tqdm = lambda tensors, **_: Counted(tensors)
