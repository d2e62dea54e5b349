"""docs/reliability.md: every fault in it names its proof, and the proof is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text("utf-8")

_PROOF = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def _functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_test_that_is_named_exists() -> None:
    proofs = set(_PROOF.findall(PAGE))
    assert len(proofs) > 30
    missing = [proof for proof in proofs if proof[1] not in _functions(ROOT / proof[0])]
    assert missing == []


def test_every_fault_names_its_proof_and_every_fault_test_proves_one() -> None:
    faults = [
        line
        for line in PAGE.splitlines()
        if line.startswith("| ") and not line.startswith("| fault ")
    ]
    assert [line for line in faults if not _PROOF.search(line)] == []
    there = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in (ROOT / "tests" / "faults").glob("test_*.py")
        for name in _functions(path)
        if name.startswith("test_")
    }
    assert there - set(_PROOF.findall(PAGE)) == set()
