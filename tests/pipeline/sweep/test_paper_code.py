"""The paper's code columns, from the shipped configs to the report: sets of the real form and size with made problems,
and a tiny model in place of Qwen3-4B. What its answers are worth is not asserted; that both columns are graded is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from evaluation.benchmarks.code.livecodebench import FILES, SIZES
from evaluation.benchmarks.code.ojbench import SIZE
from pipeline.config.yaml_file import read
from tests.evaluation.benchmarks.contests.ojbench_set import add_problem
from tests.evaluation.benchmarks.contests.rows import row
from tests.tiny import make_tiny_model, write_jsonl

ROOT = Path(__file__).resolve().parents[3]
TABLE = ROOT / "configs" / "paper" / "tables" / "table1-qwen3-4b-code.yaml"
METHODS = ("sft", "vcore")


def sets(folder: Path) -> Path:
    """A data folder with both sets, complete."""
    first = 0
    (folder / "livecodebench").mkdir(parents=True)
    for file, last in zip(FILES, SIZES.values(), strict=True):
        rows = [row(f"p{n}", f"Add ({n}).", [("1 2\n", "3\n")], [("3 4\n", "7\n")]) for n in range(first, last)]
        write_jsonl(folder / "livecodebench" / file, rows)
        first = last
    for number in range(SIZE):
        add_problem(folder / "ojbench", number + 1, **({"checker": "bridged"} if number == 1 else {}))
    return folder


def config(folder: Path) -> Path:
    """The shipped config of Qwen3-4B on code, with what does not fit a test replaced."""
    columns = {"prompt": "question", "completion": "cot"}
    demonstrations = [
        {"question": f"Print {n}.", "cot": f"```cpp\nint main() {{ return {n}; }}\n```"} for n in range(8)
    ]
    write_jsonl(folder / "code.jsonl", demonstrations)
    (folder / "tiny.yaml").write_text(
        yaml.safe_dump(
            {
                "extends": str(TABLE.parent.parent / "models" / "qwen3-4b-code.yaml"),
                "model": str(make_tiny_model(folder / "model", positions=2048)),
                "data_dir": str(sets(folder / "data")),
                "benchmarks": [
                    {"name": name, "problems": 4, "max_new_tokens": 8} for name in ("livecodebench_v6", "ojbench_cpp")
                ],
                "data": {"sft": [{"file": str(folder / "code.jsonl"), "columns": columns}]},
                "sft": {"epochs": None, "max_steps": 2, "warmup_steps": 0, "batch_size": 2, "max_length": 256,
                        "dtype": "float32"},
                "generate": {"engine": "transformers", "dtype": "float32", "enable_thinking": None},
            }
        )
    )  # fmt: skip
    return folder / "tiny.yaml"


@pytest.mark.slow
def test_both_code_columns_are_graded_and_stand_beside_the_published_ones(tmp_path: Path) -> None:
    shipped = read(TABLE).values
    published: dict[str, Any] = shipped["published"]
    chosen = {
        name: {method: value for method, value in values.items() if method in METHODS}
        for name, values in published["sft"].items()
    }
    sweep = {
        "config": str(config(tmp_path)),
        "name": "tiny-table1",
        "baseline": shipped["baseline"],
        "matrix": {"method": {method: shipped["matrix"]["method"][method] for method in METHODS}},
        "published": {**published, "sft": chosen},
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "sweep", str(tmp_path / "sweep.yaml"), "--json"],
        cwd=ROOT,
        env=environment | {"VCORE_HOME": str(tmp_path / "home"), "VCORE_DATA_DIR": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)
    beside = {(score["checkpoint"], score["benchmark"]) for score in report["published"]}
    assert beside >= {("sft", "livecodebench_v6"), ("sft", "ojbench_cpp"), ("base", "ojbench_cpp")}
    assert not any("ojbench" in one or "livecodebench" in one for one in report["published_not_measured"])
    scores = [json.loads(line) for line in next((tmp_path / "home").rglob("scores.jsonl")).read_text().splitlines()]
    assert {score["benchmark"] for score in scores} == {"livecodebench_v6", "ojbench_cpp"}
    summary = json.loads(next((tmp_path / "home").rglob("summary.json")).read_text())
    assert summary["benchmarks"]["ojbench_cpp"]["not_graded"] == {"loj-2": "its checker is not supported: bridged"}
