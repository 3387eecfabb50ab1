"""Sweeps: reading and expanding the matrix, and seeing what cells share. The store is real."""

import re
from pathlib import Path

import pytest

from pipeline.cli.sweep import command_line
from pipeline.config.schema import load_config
from pipeline.core.errors import ConfigError
from pipeline.launch import machine
from pipeline.plan import external
from pipeline.sweep.sweep import load_sweep, plan_sweep
from tests.pipeline.helpers import CONFIG, make

ROOT = Path(__file__).resolve().parents[3]
GUIDE = ROOT / "docs" / "orchestration.md"
SWEEP = """
config: small.yaml
name: methods
matrix:
  method:
    sft: {sft.method: {name: uniform}}
    vcore: {sft.method: {name: vcore}}
  seed: [0, 1]
baseline: {method: sft}
"""


def write(tmp_path: Path, text: str = SWEEP) -> Path:
    (tmp_path / "small.yaml").write_text(CONFIG)
    (tmp_path / "sweep.yaml").write_text(text)
    return tmp_path / "sweep.yaml"


def home(tmp_path: Path) -> list[str]:
    return [f"home={tmp_path / 'home'}"]


def test_the_matrix_becomes_cells(tmp_path: Path) -> None:
    cells = load_sweep(write(tmp_path), ["sft.max_steps=5"]).cells
    assert [cell.labels for cell in cells] == [{"method": m, "seed": s} for m in ("sft", "vcore") for s in ("0", "1")]
    assert cells[2].overrides == (
        'sft.method={"name": "vcore"}',
        "seed=0",
        "sft.max_steps=5",
        "name=methods.method-vcore.seed-0",
    )


def test_what_cells_share_is_planned_once(tmp_path: Path) -> None:
    planned = plan_sweep(load_sweep(write(tmp_path), home(tmp_path)))
    # Of 11 stages, a method changes 7: sft, grpo, what is sampled and scored of them, and the report.
    assert (planned.stages, planned.distinct, planned.cached) == (44, 2 * (4 + 2 * 7), 0)
    assert planned.untimed == planned.distinct
    make(tmp_path, 'sft.method={"name": "uniform"}', "name=methods.method-sft.seed-0")
    again = plan_sweep(load_sweep(write(tmp_path), home(tmp_path)))
    assert again.cached == 11
    assert again.seconds == pytest.approx(2.5 * (36 - 11)), "a stage of that name took 2.5 s last time"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("name: methods", "nmae: methods"), r"sweep.yaml:3: nmae"),
        (("seed: [0, 1]", "seed: []"), "seed: takes a list of values"),
        (("seed: [0, 1]", "seed: [0, 0]"), "a value stands in it twice"),
        (("seed: [0, 1]", "seed: 3"), "seed: takes a list of values, or named variants"),
        (("baseline: {method: sft}", "baseline: {method: sgt}"), "'sgt' is none of sft, vcore"),
        (("baseline: {method: sft}", "baseline: {seed: 0}"), "no axis that could have a baseline"),
        (("{name: vcore}", "{name: vcoer}"), r"cell method=vcore seed=0: .*sft\.method"),
        (("config: small.yaml", "config: smal.yaml"), "smal.yaml does not exist"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_sweep(load_sweep(write(tmp_path, SWEEP.replace(*change)), home(tmp_path)))


RECIPES = "recipe: {a: {sft.learning_rate: 5e-3}, b: {sft.learning_rate: 6e-3}}"


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (f"sft.learning_rate: [1e-3, 2e-3]\n  {RECIPES}", "sft.learning_rate and recipe both change sft.learning_rate"),
        (f"{RECIPES}\n  sft.learning_rate: [1e-3, 2e-3]", "recipe and sft.learning_rate both change sft.learning_rate"),
        (
            "sft.method.threshold: [0.1, 0.2]\n  sft.method: [{name: profit, threshold: 0.3}]",
            r"sweep.yaml:\d+: the axes sft.method.threshold and sft.method overlap",
        ),
        (
            "sft.method: [{name: profit}]\n  sft.method.threshold: [0.1, 0.2]",
            "sft.method and sft.method.threshold overlap",
        ),
        ("rate: {a: {sft.method.threshold: 0.1, sft.method: {name: profit}}}", "write sft.method first"),
        ("home: [one, two]", "home changes home, and all cells share one store"),
        ("name: [one, two]", "every cell has a name of its own"),
    ],
)
def test_an_axis_that_would_have_no_effect_is_refused(tmp_path: Path, axes: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_sweep(write(tmp_path, f"config: small.yaml\nname: s\nmatrix:\n  {axes}\n"), [])


def test_a_variant_may_be_named_by_a_date_or_a_number(tmp_path: Path) -> None:
    text = "config: small.yaml\nname: s\nmatrix:\n  snapshot: {2024-01-01: {seed: 1}, 7: {seed: 2}}\n"
    cells = load_sweep(write(tmp_path, text), []).cells
    assert [cell.labels for cell in cells] == [{"snapshot": "2024-01-01"}, {"snapshot": "7"}]


def test_published_scores_of_unknown_labels_are_refused(tmp_path: Path) -> None:
    published = "published: {source: a paper, axis: method, sft: {word_problems: {vcoer: 99.0}}}"
    with pytest.raises(ConfigError, match="'vcoer' is none of sft, vcore"):
        load_sweep(write(tmp_path, SWEEP + published), [])


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ("sft: {word_problems: {vcore: 500}}", r"published.sft.word_problems.vcore: 500 is no score in per cent"),
        ("base: {word_problems: -1}", r"published.base.word_problems: -1 is no score in per cent"),
        ("sft: {aime42: {vcore: 50}}", r"published: there is no benchmark 'aime42'; did you mean 'aime2"),
        ("base: {aime24+aime42: 50}", r"published: there is no benchmark 'aime42'"),
    ],
)
def test_published_scores_that_can_be_none_are_refused(tmp_path: Path, scores: str, message: str) -> None:
    published = f"published: {{source: a paper, axis: method, {scores}}}"
    with pytest.raises(ConfigError, match=message):
        plan_sweep(load_sweep(write(tmp_path, SWEEP + published), home(tmp_path)))


def test_the_recorded_command_is_the_whole_command(tmp_path: Path) -> None:
    assert command_line(Path("s.yaml"), ["seed=1"], 1, None, 0) == "vcore sweep s.yaml --set seed=1"
    whole = "vcore sweep s.yaml --jobs 3 --ray auto --gpus-per-cell 0.5"
    assert command_line(Path("s.yaml"), [], 3, "auto", 0.5) == whole


def test_the_guides_sweep_of_evaluations_plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shards,) = [
        block
        for block in re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(), re.S)
        if "benchmarks:" in block and "model:" in block
    ]
    monkeypatch.setattr(external, "_hub_commit", lambda origin: "0" * 40)
    monkeypatch.setattr(machine, "gpus", lambda: ["NVIDIA H100, 81559 MiB"])
    (tmp_path / "shards.yaml").write_text(shards.replace("configs/", f"{ROOT}/configs/"))
    planned = plan_sweep(load_sweep(tmp_path / "shards.yaml", home(tmp_path)))
    assert len(planned.cells) == 4
    programs = {stage.stage.program for cell in planned.cells for stage in cell.stages}
    assert programs == {"data", "base", "generate", "score", "report"}, "it trains nothing"
    assert planned.stages - planned.distinct == 2 + 2, "a checkpoint and a benchmark are each fetched once"


@pytest.mark.parametrize(
    "override", ["seed=3", "sft.method={name: dft}", "sft.method.name=dft", "sft={method: {name: dft}}"]
)
def test_an_override_of_an_axis_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError, match=r"is what the axis (seed|method) changes from cell to cell"):
        load_sweep(write(tmp_path), [override])


def test_a_sweep_and_a_pipeline_are_told_apart(tmp_path: Path) -> None:
    file = write(tmp_path)
    with pytest.raises(ConfigError, match=r"(?s)this is a sweep.*vcore sweep"):
        load_config(file)
    with pytest.raises(ConfigError, match=r"(?s)this is no sweep.*vcore run"):
        load_sweep(tmp_path / "small.yaml", [])
