"""Which fields of a checkpoint's `generation_config` are rules for its texts. Pure.

Sampling parameters are not among them: temperature, top-k and top-p are the request's.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

#: Fields that the engine `transformers` follows.
FOLLOWED = (
    "forced_bos_token_id",
    "forced_eos_token_id",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "bad_words_ids",
    "suppress_tokens",
    "begin_suppress_tokens",
    "min_length",
    "min_new_tokens",
    "repetition_penalty",
    "encoder_repetition_penalty",
    "exponential_decay_length_penalty",
    "sequence_bias",
    "remove_invalid_values",
)

#: Fields that choose among several texts: one is made here, and the log says so.
SEARCH = ("num_beams", "num_beam_groups", "penalty_alpha", "dola_layers")

#: Fields without which the model's texts are others, and which are refused.
REFUSED = ("guidance_scale", "watermarking_config", "constraints", "force_words_ids")

#: Fields that ask for nothing where they are 1; the others where they are 0, empty or unset.
_FACTORS = ("repetition_penalty", "encoder_repetition_penalty", "guidance_scale", *SEARCH[:2])

_log = logging.getLogger(__name__)


def asked(config: Any, names: Sequence[str]) -> dict[str, Any]:
    """Those of the fields that ask for something, with their values."""
    values = {name: getattr(config, name, None) for name in names}
    return {name: value for name, value in values.items() if _asks(name, value)}


def _asks(name: str, value: Any) -> bool:
    if name.startswith("forced_"):
        return value is not None  # token 0 is one, too
    return bool(value) and not (name in _FACTORS and value == 1)


def warn_not_followed(engine: str, config: Any) -> None:
    """Log the rules of a checkpoint that an engine does not follow."""
    rules = asked(config, (*FOLLOWED, *SEARCH, *REFUSED))
    if rules:
        _log.warning(
            "the checkpoint's generation_config asks for %s, which engine '%s' does not follow: "
            "use engine 'transformers' for the texts of model.generate",
            ", ".join(rules),
            engine,
            extra={"action": "engine_no_rules"},
        )
