"""Parameters of other systems: which of ours means the same, and which values ask for nothing.

People bring requests that were written for OpenAI, Anthropic, Gemini, vLLM, llama.cpp, Ollama, TGI
or `transformers.generate`. A value that changes nothing (`frequency_penalty: 0`) is accepted; any
other is refused by name, with what to write instead. Names are compared in snake case, so `topP` is
`top_p`. Pure.

    python -m db.foreign_names        # the tables of docs/formats.md
"""

from __future__ import annotations

import json
import re
import reprlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

_REMOVE = "not supported, remove it"
_ONE_DRAW = "every token is drawn by itself here: not supported, remove it"
_MESSAGE = "write it as the first of the 'messages', with the role system"
_ALLOWED = "use regex, choice, grammar or response_format to say what the text may be"

#: Marks a name whose every value asks for nothing of the model.
_ANY: Any = object()


@dataclass(frozen=True, slots=True)
class ForeignName:
    """One parameter of another system."""

    #: Our parameter, or our key of a request, that means the same.
    ours: str | None = None
    #: What to do about it where there is none of ours: the end of a message.
    advice: str = ""
    #: Values that change nothing, besides null.
    neutral: tuple[Any, ...] = ()


def _means(ours: str, *names: str) -> dict[str, ForeignName]:
    return dict.fromkeys(names, ForeignName(ours))


def _lacks(advice: str = _REMOVE, /, **neutral: Any) -> dict[str, ForeignName]:
    """Names that have no counterpart, each with its neutral values: one, or a tuple of them."""
    return {
        name: ForeignName(None, advice, values if isinstance(values, tuple) else (values,))
        for name, values in neutral.items()
    }


#: In snake case.
FOREIGN_NAMES: dict[str, ForeignName] = {
    # The same under another name.
    **_means(
        "max_tokens",
        *("max_output_tokens", "max_tokens_to_sample", "num_predict", "n_predict", "max_gen_len"),
        *("max_gen_toks", "max_gen_tokens", "max_generation_tokens", "max_decode_len"),
    ),
    **_means("max_length", "max_total_tokens", "max_len"),
    **_means("temperature", "temp"),
    **_means("top_p", "nucleus_p"),
    **_means("n", "candidate_count", "num_samples", "num_completions", "num_generations"),
    **_means("seed", "random_seed", "rng_seed"),
    **_means("stop", "stop_sequences", "stop_sequence", "stop_strings", "stop_words"),
    **_means("stop_token_ids", "eos_token_id", "stop_tokens", "stop_ids"),
    **_means("repetition_penalty", "repeat_penalty", "rep_pen"),
    **_means("logprobs", "top_n_tokens", "n_probs", "num_logprobs", "response_logprobs"),
    **_means("top_logprobs", "num_top_logprobs"),
    **_means("echo", "return_full_text"),
    **_means(
        "response_format",
        *("json_schema", "schema", "guided_json", "response_schema", "response_json_schema"),
        *("response_mime_type", "text_format", "output_format"),
    ),
    **_means("regex", "guided_regex", "structured_regex"),
    **_means("choice", "guided_choice", "choices"),
    **_means("grammar", "guided_grammar", "ebnf"),
    **_means("adapter", "adapter_id", "lora_adapter", "lora_name", "lora_path", "lora_request"),
    **_means("chat_template_kwargs", "enable_thinking", "template_kwargs"),
    **_means("custom_id", "id", "request_id"),
    **_means("prompt", "input", "inputs", "instruction", "question", "text", "prompt_token_ids"),
    **_means("messages", "chat", "conversation", "conversations", "contents"),
    **_means("params", "parameters", "sampling_params", "generation_config", "generate_kwargs"),
    **_means("tool_choice", "tool_config"),
    # OpenAI's.
    **_lacks(
        frequency_penalty=0,
        presence_penalty=0,
        audio=(),
        prediction=(),
        suffix="",
        verbosity="medium",
        web_search_options=(),
    ),
    **_lacks("only text is generated: remove it", modalities=(["text"],)),
    **_lacks("ask for n samples and choose among them", best_of=1),
    **_lacks("write 'tools', as OpenAI's newer API has them", functions=[]),
    **_lacks("write 'tool_choice', as OpenAI's newer API has it", function_call=("none", "auto")),
    **_lacks(
        'give chat_template_kwargs, such as {"reasoning_effort": "low"}, to a model whose '
        "template has it",
        reasoning_effort=("auto", "default"),
    ),
    **_lacks(
        "jobs run as workers are free (see --priority): remove it",
        service_tier=("auto", "default"),
    ),
    **_lacks("a batch has no stream, remove it", stream=False, stream_options=({},)),
    **_lacks("nothing is stored elsewhere, remove it", store=False),
    **_lacks(
        user=_ANY,
        metadata=_ANY,
        safety_identifier=_ANY,
        prompt_cache_key=_ANY,
        prompt_cache_retention=_ANY,
    ),
    **_lacks("a vector has the model's own size: remove it", dimensions=()),
    **_lacks("a vector is written as a list of numbers: remove it", encoding_format="float"),
    # Which tokens may come, and how often.
    **_lacks(_ALLOWED, logit_bias=({}, []), bad_words=[], bad_words_ids=[], allowed_token_ids=[]),
    **_lacks(
        "there is no least length, but ignore_eos goes on up to max_tokens: remove it",
        min_tokens=0,
        min_new_tokens=0,
        min_length=0,
        min_completion_tokens=0,
    ),
    **_lacks(
        no_repeat_ngram_size=0,
        encoder_no_repeat_ngram_size=0,
        encoder_repetition_penalty=1,
        exponential_decay_length_penalty=(),
        logits_processors=[],
        logits_processor=[],
        suppress_tokens=[],
        begin_suppress_tokens=[],
        force_words_ids=[],
        forced_bos_token_id=(),
        forced_eos_token_id=(),
        renormalize_logits=False,
        remove_invalid_values=False,
        sequence_bias=({}, []),
    ),
    # How a token is drawn.
    **_lacks("write temperature 0 to be greedy; above 0, tokens are drawn", do_sample=()),
    **_lacks(
        typical_p=1,
        typ_p=1,
        epsilon_cutoff=0,
        eta_cutoff=0,
        top_a=0,
        top_h=(),
        tfs=1,
        tfs_z=1,
        mirostat=0,
        mirostat_tau=_ANY,  # nothing without mirostat, as the next without dynatemp_range …
        mirostat_eta=_ANY,
        dynatemp_range=0,
        dynatemp_exponent=_ANY,
        dry_multiplier=0,
        xtc_probability=0,
        penalize_nl=False,
        penalize_newline=False,
        repeat_last_n=-1,
        penalty_alpha=0,
        guidance_scale=1,
        watermark=False,
    ),
    **_lacks(
        _ONE_DRAW,
        num_beams=1,
        beam_width=1,
        use_beam_search=False,
        num_beam_groups=1,
        diversity_penalty=_ANY,  # … and these without beams
        length_penalty=_ANY,
        early_stopping=_ANY,
    ),
    # What comes back, and how.
    **_lacks("use --mode score to have the prompt's own", prompt_logprobs=()),
    **_lacks("use --mode score to have the prompt's own", decoder_input_details=False),
    **_lacks("special tokens are left out of a text: remove it", skip_special_tokens=True),
    **_lacks("a stop string is left out of the text", include_stop_str_in_output=False),
    **_lacks(
        spaces_between_special_tokens=True,
        detokenize=True,
        return_token_ids=False,
        return_tokens_as_token_ids=False,
        return_dict_in_generate=False,
        output_scores=False,
        include_reasoning=True,
        truncate_prompt_tokens=(),
        use_cache=True,
        cache_prompt=(True, False),
    ),
    # What an API has beside the messages.
    **_lacks(_MESSAGE, system=("",), system_instruction=(), system_prompt=("",)),
    **_lacks(
        'give chat_template_kwargs, such as {"enable_thinking": true}, to a model whose template '
        "has it",
        thinking=(),
    ),
    **_lacks(safety_settings=[], cached_content=(), mcp_servers=[], anthropic_version=_ANY),
}


#: Ordinary words, which in a row of data are its own columns as often as not.
_ORDINARY = frozenset(
    {
        *("user", "metadata", "store", "id", "input", "inputs", "instruction", "question", "text"),
        *("chat", "conversation", "conversations", "contents", "choices", "schema", "temp"),
    }
)

#: The longest name that is compared letter by letter.
_LONGEST = 60


def find(name: object) -> ForeignName | None:
    """What another system means by this name, in snake or camel case; None: nothing is known."""
    return FOREIGN_NAMES.get(snake_case(name)) if isinstance(name, str) else None


def translation(name: str) -> str | None:
    """Our parameter, or our key of a request, that means the same; None: there is none.

    A name of ours in another spelling (`topP`) is a near miss, not a translation.
    """
    foreign = find(name)
    return None if foreign is None else foreign.ours


def is_known_elsewhere(name: str) -> bool:
    """Whether another system has a parameter of this name, so that it can't pass for data.

    Not for ordinary words such as `text`, `id` and `metadata`, which rows of data have as often.
    """
    return find(name) is not None and snake_case(name) not in _ORDINARY


def is_neutral(name: object, value: object, given: Mapping[str, Any] | None = None) -> bool:
    """Whether it is a parameter of another system with a value that changes nothing.

    `given`: the parameters beside it.
    """
    foreign = find(name)
    if foreign is None:
        return False
    if value is None or foreign.neutral == (_ANY,):
        return True
    if any(_equal(value, neutral) for neutral in foreign.neutral):
        return True
    match snake_case(str(name)):
        case "best_of":  # the best n of n are all of them
            return _equal(value, (given or {}).get("n"))
        case "do_sample":
            return value is True and (given or {}).get("temperature") != 0
        case "logit_bias":
            return isinstance(value, Mapping) and all(_equal(bias, 0) for bias in value.values())
        case "stream_options":
            return isinstance(value, Mapping) and not any(value.values())
    return False


def advice(name: str, value: object) -> str | None:
    """Why this value of another system's parameter is refused, and what to do, for a message.

    None: the name means nothing elsewhere, or the same as one of ours, see `translation`.
    """
    foreign = find(name)
    if foreign is None or foreign.ours is not None:
        return None
    neutral = " or ".join(json.dumps(one) for one in foreign.neutral if one is not _ANY)
    otherwise = f" (only {neutral} is accepted)" if neutral else ""
    return f"parameter '{name}' is {_shown(value)}: {foreign.advice}{otherwise}"


@lru_cache(maxsize=4096)
def snake_case(name: str) -> str:
    """`topP`, `top-p` and `Top_P` are `top_p`."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name[: _LONGEST + 1])
    return re.sub(r"[\s\-_.]+", "_", spaced).strip("_").lower()


def _equal(value: object, other: object) -> bool:
    """As JSON has it: 0 is 0.0, and true is not 1."""
    if isinstance(value, bool) or isinstance(other, bool):
        return value is other
    if isinstance(value, int | float) and isinstance(other, int | float):
        return value == other
    if isinstance(value, list | tuple) and isinstance(other, list | tuple):
        return list(value) == list(other)
    return type(value) is type(other) and isinstance(value, str | dict) and value == other


def _shown(value: object) -> str:
    """The value, short enough for a message."""
    if isinstance(value, int) and value.bit_length() > 200:
        return "a number that long"  # Python refuses to print some of them
    return reprlib.repr(value)


def tables() -> str:
    """The tables of docs/formats.md, in Markdown: translations, then names without one."""
    translated, refused = defaultdict(list), defaultdict(list)
    for name, foreign in FOREIGN_NAMES.items():
        if foreign.ours is not None:
            translated[foreign.ours].append(name)
        else:
            anything = foreign.neutral == (_ANY,)
            neutral = "anything" if anything else _code(map(json.dumps, foreign.neutral))
            refused[neutral or "only null", "" if anything else foreign.advice].append(name)
    first = [f"| {_code(names)} | `{ours}` |" for ours, names in translated.items()]
    second = [
        f"| {_code(names)} | {neutral} | {advice} |" for (neutral, advice), names in refused.items()
    ]
    return "\n".join(
        [
            *("| elsewhere | here |", "|---|---|", *first),
            *("", "| elsewhere | accepted without effect | otherwise |", "|---|---|---|", *second),
        ]
    )


def _code(texts: Iterable[str]) -> str:
    return ", ".join(f"`{text}`" for text in texts)


if __name__ == "__main__":
    print(tables())  # noqa: T201
