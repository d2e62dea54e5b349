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
_NO_CHOICE = "no effect: there is nothing to choose"

SUPPORT: dict[str, Support] = {
    "transformers": _ALL,
    "echo": {
        **_ALL,
        "max_tokens": "yes; a token is a word",
        "max_length": "yes; a token is a word",
        "temperature": "0: begins with the first word; else with word number (seed + sample)",
        "seed": "see temperature",
        "logprobs": "every log-probability is 0",
        "top_logprobs": "one alternative at most",
        **dict.fromkeys(("top_k", "top_p", "min_p", "repetition_penalty"), _NO_CHOICE),
    },
}


#: The modes of each engine; whichever is missing here has `generate` alone.
MODES: dict[str, frozenset[Mode]] = {
    "transformers": frozenset(Mode),
    "echo": frozenset(Mode),
}


def refusal(engine: str, params: SamplingParams) -> Failed | None:
    """Why this engine can't honour what was asked for; None: it can."""
    support = SUPPORT[engine]
    for name in SamplingParams.model_fields:
        asked = getattr(params, name) != SamplingParams.model_fields[name].default
        if asked and name not in support:
            return Failed(
                "unsupported_parameter",
                f"engine '{engine}' can't honour {name}: leave it out or use an engine that can "
                f"({', '.join(_that_honour(name))})",
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
        [f"`{name}`", *(SUPPORT[engine].get(name, "refused") for engine in engines)]
        for name in SamplingParams.model_fields
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def _that_honour(name: str) -> list[str]:
    return [engine for engine, support in SUPPORT.items() if name in support]


if __name__ == "__main__":
    print(table(), modes_table(), sep="\n", end="")  # noqa: T201
