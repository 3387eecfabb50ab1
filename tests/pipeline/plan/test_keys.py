"""What enters a key: the files are listed; an edit reruns the stages whose result it can change, and no other.

After a change that is meant, write the lists anew and say in the commit why they changed:
`python -m tests.pipeline.plan.test_keys`
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.schema import load_config
from pipeline.plan import code
from pipeline.plan.code import code_now, code_of
from pipeline.plan.graph import Stage, build_graph

LISTS = Path(__file__).with_name("key_files")
CONFIG = """
name: keys
seed: 0
model: make
benchmarks:
- {name: word_problems, problems: 4}
- {name: aime24}
data:
  sft: [{task: word_problems, rows: 8}]
  rl: [{task: gsm8k, rows: 8}]
sft: {}
difficulty: {}
grpo: {steps: 2}
"""


def stages(folder: Path) -> dict[str, Stage]:
    """Each kind of stage once, as a pipeline has it that uses all of them."""
    (folder / "keys.yaml").write_text(CONFIG)
    return {stage.program: stage for stage in build_graph(load_config(folder / "keys.yaml"))}


def listed(kinds: dict[str, Stage]) -> dict[str, str]:
    return {name: "".join(f"{file}\n" for file in code_of(s.kind, s.settings)) for name, s in kinds.items()}


def test_the_files_that_each_key_holds_are_those_listed(tmp_path: Path) -> None:
    assert set(stages(tmp_path)) == {file.parent.name for file in (code.ROOT / "stages").glob("*/stage.py")}
    on_disk = {file.stem: file.read_text() for file in LISTS.glob("*.txt")}
    assert listed(stages(tmp_path)) == on_disk, "see the head of this file"


def test_no_key_holds_a_carrier(tmp_path: Path) -> None:
    files = "".join(listed(stages(tmp_path)).values())
    assert not re.search(r"harness|/stage\.py|catalogue|^pipeline/", files, re.MULTILINE)


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Edits of a copy of our sources: (file, text, its replacement) -> the stages whose code digest that changes."""
    root = tmp_path / "copy"
    for package in ("stages", "evaluation"):
        shutil.copytree(code.ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    kinds = stages(tmp_path)

    def digests() -> dict[str, dict[str, str]]:
        return {name: code_now(stage.kind, stage.settings) for name, stage in kinds.items()}

    monkeypatch.setattr(code, "ROOT", root)
    before = digests()

    def changed(file: str, old: str, new: str) -> set[str]:
        text = (root / file).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{file} holds {old!r} {text.count(old)} times: the test edits something else now"
        (root / file).write_text(text.replace(old, new), encoding="utf-8")
        after = digests()
        (root / file).write_text(text, encoding="utf-8")
        return {name for name in kinds if after[name] != before[name]}

    return changed


@pytest.mark.parametrize(
    ("file", "old", "new", "reruns"),
    [
        pytest.param(
            "stages/harness/transient.py", "(429, 500,", "(408, 429, 500,", set(), id="one more HTTP code is transient"
        ),
        pytest.param("stages/harness/context.py", "< 0.1 and", "< 0.2 and", set(), id="progress is written less often"),
        pytest.param(
            "stages/sft/method_settings.py",
            "diagnostics_steps: int = execution(50,",
            "diagnostics_steps: int = execution(25,",
            set(),
            id="an execution default of VCORE",
        ),
        pytest.param(
            "evaluation/benchmarks/catalogue.py", "2024, I and II.", "2024.", set(), id="the description of a benchmark"
        ),
        pytest.param(
            "evaluation/harness/replicas.py",
            "CLOSES_WITHIN_S = 20",
            "CLOSES_WITHIN_S = 30",
            set(),
            id="how long closing may take",
        ),
        pytest.param(
            "evaluation/statistics.py", "_MOST_STEPS = 5_", "_MOST_STEPS = 6_", {"report"}, id="a bound of a test"
        ),
        pytest.param(
            "evaluation/benchmarks/maths/aime24.py",
            '("I", "II")',
            '("II", "I")',
            {"data"},
            id="a benchmark that is used",
        ),
        pytest.param(
            "evaluation/benchmarks/code/mbpp.py", "\nSIZE = 500", "\nSIZE = 501", set(), id="one that is not used"
        ),
        pytest.param(
            "stages/training/settings.py", "rank: int = identity(8", "rank: int = identity(16", set(), id="a default"
        ),
    ],
)
def test_an_edit_reruns_what_it_can_change(copied: Any, file: str, old: str, new: str, reruns: set[str]) -> None:
    assert copied(file, old, new) == reruns


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as temporary:
        for name, files in listed(stages(Path(temporary))).items():
            (LISTS / f"{name}.txt").write_text(files)
