"""What a template makes of a row: a bare prompt, or a chat whose user says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from db.faults import Faults
from producer.reading.chat import check_messages
from producer.reading.template import Template
from producer.reading.texts import check_prompt


@dataclass(frozen=True, slots=True)
class RowPrompt:
    """`--template`, with `--system` and whether its text becomes a chat's user message."""

    template: Template
    system: Template | None = None
    chat: bool = False

    @classmethod
    def parse(cls, template: str | None, system: str | None, chat: bool) -> RowPrompt | None:
        """None without a template. Raises UsageError for bad ones, and for what does not fit."""
        faults = Faults()
        if template is None:
            if system is not None:
                faults.add(
                    "--system is for chats that --template makes: give --template, or write the "
                    "system message into each line's 'messages'"
                )
            if chat:
                faults.add("--chat is for what --template makes: give --template, too")
            faults.raise_all()
            return None
        if system is not None and not chat:
            faults.add(
                "--system is for chats, and each row becomes a bare prompt: give --chat, or put "
                "its text into --template"
            )
        row = faults.of(Template.parse, template)
        rule = None if system is None else faults.of(Template.parse, system, columns_needed=False)
        return cls(faults.checked(row), rule, chat)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it names, each once."""
        system = () if self.system is None else self.system.columns
        return tuple(dict.fromkeys((*self.template.columns, *system)))

    def request(self, row: Mapping[str, Any], limit: int) -> dict[str, Any]:
        """The row's request, of `limit` bytes at most. Raises Refusal."""
        prompt = check_prompt(self.template.render(row), limit)
        if not self.chat:
            return {"prompt": prompt}
        messages = [{"role": "user", "content": prompt}]
        if self.system is not None:
            messages.insert(0, {"role": "system", "content": self.system.render(row)})
        return {"messages": check_messages(messages, limit)}
