"""Which tokens end an assistant's turn in a chat, whatever a checkpoint's config lists.

A `generation_config.json` often lacks the token by which a fine-tune ends its turns: then a chat
runs on to its limit. The template shows it: it is what follows an assistant's content.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from worker.engine.shared.chat_template import Chat, ChatTemplate, TemplateRefusal
from worker.engine.shared.forms import Form
from worker.engine.shared.sentinels import sentinels
from worker.engine.shared.skeleton import Message

#: Names that tokenizers have for such tokens: end of text, of turn, of message.
_NAMES = ("eos_token", "eot_token", "eom_token")

#: Control tokens that end a turn wherever a vocabulary has them: as in llama.cpp.
_KNOWN = frozenset(
    {
        *("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<turn|>", "<|endoftext|>"),
        *("<|end_of_text|>", "<|eom_id|>", "<end_of_utterance>"),
    }
)

#: gpt-oss's, by which a turn ends that calls a function; elsewhere the name means other things.
_CALLED, _RETURNED = "<|call|>", "<|return|>"

#: Templates that take a content as text, and those that take parts only.
_FORMS = (Form(), Form(wrapped=frozenset({"user", "assistant"})))


def turn_ends(tokenizer: Any, template: ChatTemplate) -> frozenset[int]:
    """Ids of the tokens that end an assistant's turn, as tokenizer and template say."""
    added = _added(tokenizer)
    named = getattr(tokenizer, "special_tokens_map", None) or {}
    ends = {str(named[name]) for name in _NAMES if name in named}
    ends |= {text for text, token in added.items() if token[1] and text in _KNOWN}
    if _RETURNED in added:
        ends.add(_CALLED)
    after, within = _written(template, added)
    # gpt-oss ends each message of a turn with the same token: that ends no turn.
    ends = (ends | after) - within
    return frozenset(added[text][0] for text in ends if text in added)


def shown(tokenizer: Any, ids: frozenset[int]) -> frozenset[int]:
    """Those of these tokens that a decoder does not leave out of a text."""
    hidden = {number for number, is_special in _added(tokenizer).values() if is_special}
    return ids - hidden - frozenset(getattr(tokenizer, "all_special_ids", None) or ())


def _written(
    template: ChatTemplate, added: Mapping[str, tuple[int, bool]]
) -> tuple[set[str], set[str]]:
    """Tokens that follow an assistant's content at once, and those between reasoning and content.

    Nothing where the template can't render the chats that are tried.
    """
    supply = sentinels(template.sources())
    question, reasoning, content, further = (next(supply) for _ in range(4))
    plain = {"role": "assistant", "content": content}
    after: set[str] = set()
    within: set[str] = set()
    for answer in (plain, {**plain, "reasoning_content": reasoning}):
        for last in ([], [{"role": "user", "content": further}]):
            text = _rendered(template, [{"role": "user", "content": question}, answer, *last])
            before, found, rest = text.rpartition(content)
            if found and (end := _first(rest.lstrip(), added)):
                after.add(end)
            _, thought, between = before.rpartition(reasoning)
            if thought:
                within |= {token for token in added if token in between}
    return after, within


def _rendered(template: ChatTemplate, messages: list[Message]) -> str:
    """The chat as text; empty where the template can't render it."""
    for form in _FORMS:
        try:
            text = template.render(Chat(form.of(messages)), 0.0)
        except TemplateRefusal:
            continue
        if str(messages[1]["content"]) in text:
            return text
    return ""


def _first(text: str, added: Mapping[str, Any]) -> str | None:
    """The token of its own that the text begins with, the longest; None: it begins with none."""
    return max((token for token in added if text.startswith(token)), key=len, default=None)


def _added(tokenizer: Any) -> dict[str, tuple[int, bool]]:
    """The tokens that are no pieces of words: text -> id, and whether a text leaves it out."""
    return dict(_entries(getattr(tokenizer, "added_tokens_decoder", None) or {}))


def _entries(decoder: Mapping[int, Any]) -> Iterator[tuple[str, tuple[int, bool]]]:
    for number, token in decoder.items():
        if token.content.strip():
            yield token.content, (number, bool(token.special))
