"""What a declaration says of a machine that is no GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.harness import declaration
from stages.harness.declaration import cpu_flags, wrong_precision


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16"])
def test_bfloat16_runs_on_a_cpu_that_multiplies_in_it(
    flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(f"model name\t: any\nflags\t\t: fpu avx2 {flag} sse\n\nflags\t\t: fpu\n")
    flags = cpu_flags(tmp_path / "cpuinfo")
    assert flags == {"fpu", "avx2", flag, "sse"}
    monkeypatch.setattr(declaration, "cpu_flags", lambda: flags)
    assert not list(wrong_precision("sft", "bfloat16"))
    [complaint] = wrong_precision("sft", "float16")
    assert complaint.message == "float16 is for GPUs"


def test_any_other_cpu_is_told_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cpu_flags(tmp_path / "missing") == frozenset()
    monkeypatch.setattr(declaration, "cpu_flags", frozenset)
    [complaint] = wrong_precision("grpo", "bfloat16")
    assert "amx_bf16 or avx512_bf16" in complaint.message
    assert complaint.setting == "grpo.dtype"
    assert not list(wrong_precision("grpo", "float32"))
