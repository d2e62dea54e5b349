"""As much of the Dockerfile's syntax as the tests need."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field


@dataclass
class Stage:
    """One FROM and what follows it."""

    name: str
    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def words(self, instruction: str) -> list[str]:
        """The last ENTRYPOINT or CMD of this stage itself; empty if it has none."""
        found = [value for name, value in self.instructions if name == instruction]
        return [str(word) for word in json.loads(found[-1])] if found else []

    def values(self, instruction: str) -> list[str]:
        return [value for name, value in self.instructions if name == instruction]


def stages(text: str) -> dict[str, Stage]:
    """The stages by name, in order; each must have one."""
    found: dict[str, Stage] = {}
    for line in _logical_lines(text):
        instruction, _, value = line.partition(" ")
        if instruction == "FROM":
            match = re.fullmatch(r"(\S+) AS (\S+)", value.strip())
            if match is None:
                raise ValueError(f"a stage without a name: {line}")
            found[match[2]] = stage = Stage(match[2], match[1])
        else:
            stage.instructions.append((instruction, value.strip()))
    return found


def inherited(found: dict[str, Stage], name: str, instruction: str) -> list[str]:
    """The ENTRYPOINT or CMD that an image of this stage has."""
    stage = found.get(name)
    if stage is None:
        return []
    return stage.words(instruction) or inherited(found, stage.base, instruction)


def _logical_lines(text: str) -> list[str]:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return "\n".join(lines).replace("\\\n", " ").splitlines()
