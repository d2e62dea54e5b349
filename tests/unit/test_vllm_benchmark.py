"""Which settings the benchmark gives vLLM on a CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.vllm_settings import best_settings, described, physical_cores


@pytest.mark.parametrize(
    ("allowed", "siblings", "cores"),
    [
        ({0, 1}, ["0\n", "1\n"], [0, 1]),
        ({0, 1, 2, 3}, ["0,2\n", "1,3\n", "0,2\n", "1,3\n"], [0, 1]),
        ({0, 1, 2, 3}, ["0-1\n", "0-1\n", "2-3\n", "2-3\n"], [0, 2]),
        ({3, 5}, ["0,4", "1,5", "2,6", "3,7", "0,4", "1,5", "2,6", "3,7"], [3, 5]),
        ({0, 1}, [], [0, 1]),
    ],
)
def test_every_physical_core_gets_one_thread(
    allowed: set[int], siblings: list[str], cores: list[int]
) -> None:
    assert physical_cores(allowed, siblings) == cores


def test_openmp_of_the_peer_is_preloaded_where_it_is_installed(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    assert "libiomp5" not in best_settings(python).get("LD_PRELOAD", "")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libiomp5.so").touch()
    assert best_settings(python)["LD_PRELOAD"].endswith("lib/libiomp5.so")


def test_settings_are_described_without_folders() -> None:
    settings = {"VLLM_CPU_OMP_THREADS_BIND": "0,1", "LD_PRELOAD": "/usr/lib/a.so:/opt/b.so"}
    assert described(settings) == "VLLM_CPU_OMP_THREADS_BIND=0,1 LD_PRELOAD=a.so:b.so"
