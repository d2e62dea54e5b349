"""Which generation parameters each engine honours, and refusing the others by name.

    python -m worker.engine.parameters        # the tables of docs/engines.md

The one source of both: an engine never ignores a parameter. It imports no model library.
"""

from __future__ import annotations

from collections.abc import Mapping

from db.modes import Mode
from db.sampling import SamplingParams
from worker.engine.protocol import Failed

YES = "yes"

#: Parameter -> `yes`, or what the engine makes of it. One that is missing is refused.
Support = Mapping[str, str]

_ALL: Support = dict.fromkeys(SamplingParams.model_fields, YES)
#: What only an engine that chooses tokens can follow.
STRUCTURES = ("response_format", "regex", "choice", "grammar")
#: What only an engine that has the model's layers, or vLLM, can add.
ADAPTER = "adapter"
#: What only an engine that renders chats itself can follow.
_RENDERING = ("chat_template_kwargs", "add_generation_prompt", "continue_final_message")
#: What only an engine that has the model's tokenizer can follow.
_SPECIAL_TOKENS = "add_special_tokens"
_TOOLS = ("tool_choice", "parallel_tool_calls")
_FORMAT = "yes; `required` and a named function where the template's form of calls is known"
_NO_CHOICE = "no effect: there is nothing to choose"

SUPPORT: dict[str, Support] = {
    "transformers": {**_ALL, "tool_choice": _FORMAT},
    "keras": {
        **{name: what for name, what in _ALL.items() if name != ADAPTER},
        "tool_choice": _FORMAT,
    },
    "vllm": {
        **_ALL,
        "tool_choice": _FORMAT,
        "temperature": "yes, up to 2; between 0 and 0.01 it counts as 0.01",
        "logprobs": "yes; under a structure, among the tokens that it allows",
    },
    "echo": {
        **{
            name: what
            for name, what in _ALL.items()
            if name not in (*STRUCTURES, *_TOOLS, *_RENDERING)
        },
        "retry_invalid": "no effect: it takes no structure",
        _SPECIAL_TOKENS: "no effect: it has no special tokens",
        "max_tokens": "yes; a token is a word",
        "max_length": "yes; a token is a word",
        "temperature": "0: begins with the first word; else with word number (seed + sample)",
        "seed": "see temperature",
        "logprobs": "every log-probability is 0",
        "top_logprobs": "one alternative at most",
        ADAPTER: "no effect; one that the worker was not given is refused",
        **dict.fromkeys(("top_k", "top_p", "min_p", "repetition_penalty"), _NO_CHOICE),
    },
    "openai": {
        **dict.fromkeys(("max_tokens", "temperature", "top_p", "retry_max_tokens"), YES),
        "retry_invalid": "yes; with `extensions=google` without another seed",
        "n": "yes; where one answer has fewer, the rest is asked for again",
        "stop": "yes; the first 4 end the text at the endpoint, all of them here",
        "seed": "passed on, its low 31 bits; refused with `extensions=google`",
        "logprobs": "yes, as the endpoint computes them; without token ids",
        "response_format": "for chats; with `extensions=vllm` for prompts too",
        "top_logprobs": "yes",
        "echo": "yes; refused for a chat",
        "tool_choice": "passed on",
        "parallel_tool_calls": "passed on",
    },
}

#: Engine -> one of its options, as `name=value` -> what it honours under that option only.
UNDER_OPTION: dict[str, dict[str, frozenset[str]]] = {
    "openai": {
        "extensions=vllm": frozenset(
            {
                *("top_k", "min_p", "repetition_penalty", "stop_token_ids", "ignore_eos"),
                *("regex", "choice", "grammar", _SPECIAL_TOKENS),
                *_RENDERING,
            }
        )
    }
}


def adapter_engines() -> list[str]:
    """The engines that load LoRA adapters."""
    return _that_honour(ADAPTER)


#: The modes of each engine.
MODES: dict[str, frozenset[Mode]] = {
    "transformers": frozenset(Mode),
    "keras": frozenset({Mode.GENERATE}),
    "vllm": frozenset({Mode.GENERATE}),
    "echo": frozenset(Mode),
    "openai": frozenset({Mode.GENERATE}),
}


def refusal(engine: str, params: SamplingParams, option: str | None = None) -> Failed | None:
    """Why this engine can't honour what was asked for; None: it can.

    `option`: the one that the engine has of those in UNDER_OPTION.
    """
    under = UNDER_OPTION.get(engine, {})
    support = {*SUPPORT[engine], *under.get(option or "", ())}
    for name in SamplingParams.model_fields:
        asked = getattr(params, name) != SamplingParams.model_fields[name].default
        if asked and name not in support:
            options = [f"with the option {one}" for one, names in under.items() if name in names]
            others = [f"'{one}'" for one in _that_honour(name)]
            return Failed(
                "unsupported_parameter",
                f"engine '{engine}' can't honour {name}: leave it out or use what can "
                f"({', '.join([*options, *others])})",
            )
    return None


def refused_mode(engine: str, mode: Mode) -> Failed:
    """What an engine says to a mode that it has not."""
    able = [name for name, modes in MODES.items() if mode in modes]
    return Failed(
        "unsupported_mode",
        f"engine '{engine}' can't {mode}: submit the batch in mode generate, or use an engine that "
        f"can ({', '.join(able)})",
    )


def modes_table() -> str:
    """Modes down, engines across, in Markdown."""
    engines = list(MODES)
    rows = [["mode", *(f"`{engine}`" for engine in engines)], ["---"] * (len(engines) + 1)]
    rows += [
        [f"`{mode}`", *(YES if mode in MODES[engine] else "refused" for engine in engines)]
        for mode in Mode
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def table() -> str:
    """Parameters down, engines across, in Markdown."""
    engines = list(SUPPORT)
    rows = [["parameter", *(f"`{engine}`" for engine in engines)], ["---"] * (len(engines) + 1)]
    rows += [
        [f"`{name}`", *(_cell(engine, name) for engine in engines)]
        for name in SamplingParams.model_fields
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def _cell(engine: str, name: str) -> str:
    under = [f"`{one}`" for one, names in UNDER_OPTION.get(engine, {}).items() if name in names]
    return SUPPORT[engine].get(name) or (f"with {' or '.join(under)}" if under else "refused")


def _that_honour(name: str) -> list[str]:
    return [engine for engine, support in SUPPORT.items() if name in support]


if __name__ == "__main__":
    print(table(), modes_table(), sep="\n", end="")  # noqa: T201
