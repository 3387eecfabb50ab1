"""Every config that ships plans and passes the pre-flight checks offline, as on a GPU box with the hub at hand."""

from pathlib import Path

import pytest

from pipeline.checks.preflight import preflight
from pipeline.config.schema import load_config
from pipeline.config.yaml_file import read
from pipeline.launch import machine
from pipeline.plan import external
from pipeline.plan.planning import make_plan
from pipeline.store.store import Store
from pipeline.sweep.sweep import load_sweep, plan_sweep

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))
SWEEPS = [file for file in FILES if "matrix" in read(file).values]
PIPELINES = [file for file in FILES if file not in SWEEPS and file.parent.name != "accelerate"]


@pytest.fixture(autouse=True)
def gpu_box_with_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "gpus", lambda: ["NVIDIA H200, 143771 MiB"] * 4)
    monkeypatch.setattr(external, "_hub_commit", lambda origin: "0" * 40)
    (tmp_path / "big_math.jsonl").write_text("")
    (tmp_path / ".vcore" / "models").mkdir(parents=True)
    (tmp_path / ".vcore" / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf").write_text("")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("file", PIPELINES, ids=lambda file: str(file.relative_to(CONFIGS)))
def test_pipelines_plan(tmp_path: Path, file: Path) -> None:
    config = load_config(file, [f"home={tmp_path / 'home'}"])
    plan = make_plan(config, Store(config.home_folder))
    preflight(config, plan)
    assert plan[0].state == "RUN"


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: str(file.relative_to(CONFIGS)))
def test_sweeps_plan(tmp_path: Path, file: Path) -> None:
    planned = plan_sweep(load_sweep(file, [f"home={tmp_path / 'home'}"]))
    assert planned.distinct < planned.stages, "cells share stages"


@pytest.mark.parametrize("file", sorted((CONFIGS / "accelerate").iterdir()), ids=lambda file: file.name)
def test_accelerate_reads_its_configs(file: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    assert load_config_from_file(str(file)).num_processes == 2  # and `execution.launch.STAGE.processes` goes before it


def test_every_row_of_the_papers_tables_has_a_cell() -> None:
    methods = {"sft", "dft", "iw_sft", "random", "vcore-official"}
    for model in ("llama3.1-8b", "qwen3-4b", "qwen3-8b", "qwen3-32b"):
        for domain in ("maths", "code"):
            table = CONFIGS / "paper" / "tables" / f"table1-{model}-{domain}.yaml"
            assert methods <= set(read(table).values["matrix"]["method"])
    for model in ("qwen3-4b", "qwen3-8b"):
        assert {"dft", "vcore-official"} <= set(
            read(CONFIGS / "paper" / "tables" / f"table2-{model}.yaml").values["matrix"]["method"]
        )
    assert methods <= set(read(CONFIGS / "paper" / "tables" / "table3-qwen3-8b.yaml").values["matrix"]["method"])
