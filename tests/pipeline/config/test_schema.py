"""Every mistake in a config is one clear line: where, which setting, what is wrong, what to do."""

import subprocess
from pathlib import Path

import pytest

from pipeline.checks.preflight import preflight
from pipeline.config.schema import load_config
from pipeline.core.errors import ConfigError
from pipeline.plan.decide import Options
from pipeline.run.session import plan_only
from pipeline.store.store import Store
from stages.harness import declaration
from tests.pipeline.helpers import CONFIG


def load(tmp_path: Path, *overrides: str, text: str = CONFIG) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    load_config(path, list(overrides))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "sft.learnin_rate=1",
            r"--set sft.learnin_rate=1: sft.learnin_rate: unknown setting; did you mean 'learning_rate'",
        ),
        ("sft.method={name: vcore, deltta: 0.1}", r"sft.method.deltta: unknown setting"),
        (
            "execution.launch={sft: {kind: torchrun, node: 2}}",
            r"execution.launch.sft.node: unknown setting; did you mean 'nodes'",
        ),
        ("stf={}", r"stf: unknown setting; did you mean 'sft'"),
        ("sft.method={name: vcroe}", r"sft.method.name: there is no 'vcroe'; did you mean 'vcore'"),
        ("sft.method={}", r"sft.method.name: this setting is required"),
        ("sft.learning_rate=fast", r"sft.learning_rate: .*valid number.*found 'fast'"),
        ("sft.learning_rate=-1", r"sft.learning_rate: .*greater than 0"),
        ("sft.batch_size=true", r"sft.batch_size: .*integer"),
        ("sft.method.name=vcoer", r"sft.method"),
        ("model_revision=v1", r"model_revision: is for models of the hub, and this one is made"),
        ("sft.lora={targets: []}", r"sft.lora.targets"),
        ("execution.threads=100000", r"execution.threads: .*less than or equal to 4096"),
        ("seed=-1", r"seed: .*greater than or equal to 0"),
        ("seed=0.5", r"seed: .*integer"),
        ("name=a b", r"name: a name is made of letters.*found 'a b'"),
        (
            "execution.notify=slack",
            r"execution.notify: give type and name of a Prefect .*, such as slack-webhook/my-.*'slack'",
        ),
        ("benchmarks=[]", r"benchmarks: .*at least 1"),
        (
            "benchmarks.0.name=word_problem",
            r"benchmarks.0.name: there is no benchmark 'word_problem'; did you mean 'word_problems'",
        ),
        ("benchmarks.0.own={file: x.jsonl}", r"benchmarks.0.name: 'word_problems' is taken"),
        ("benchmarks.0={name: rl, own: {file: x.jsonl}}", r"benchmarks.0.name: 'rl' is taken"),
        (
            "benchmarks.0={name: x, own: {file: x.jsonl, template: hi}}",
            r"benchmarks.0.own.template: has no {prompt}|template: has no",
        ),
        (
            "benchmarks.0={name: x, own: {file: x.jsonl, columns: {gold: a}}}",
            r"benchmarks.0.own.columns.gold: unknown setting; known: answer, beginning, id, ",
        ),
        (
            "benchmarks.0={name: x, own: {file: x.jsonl, columns: {completion: a}}}",
            r"benchmarks.0.own.columns.completion: unknown setting",
        ),
        (
            "benchmarks.0={name: x, own: {file: x.jsonl, columns: {prompt: q, answer: q}}}",
            r"benchmarks.0.own.columns.answer: is the column 'q', which prompt is too",
        ),
        (
            "benchmarks.0={name: x, own: {file: x.jsonl, columns: {prompt: gold}}}",
            r"benchmarks.0.own.columns.answer: is the column 'gold', which prompt is too",
        ),
        (
            "benchmarks.0={name: x, own: {file: x.jsonl, columns: {answer: ' '}}}",
            r"benchmarks.0.own.columns.answer: names no column",
        ),
        (
            "benchmarks.0={name: x, own: {file: x.jsonl, columns: {prompt: q, messages: m}}}",
            r"benchmarks.0.own.columns.messages: holds whole conversations; leave out prompt",
        ),
        (
            "benchmarks.0={name: x, own: {file: x.jsonl, columns: {tests: t}}}",
            r"benchmarks.0.own.columns.tests: is for kind: code, and the kind is maths",
        ),
        (
            "benchmarks.0={name: x, own: {file: x.jsonl, kind: code, columns: {setup: s}}}",
            r"benchmarks.0.own.columns.setup: runs before the asserts of a column of tests",
        ),
        (
            "benchmarks.0={name: math500, columns: {prompt: q}}",
            r"benchmarks.0.own.columns: columns are those of a file of yours",
        ),
        ("benchmarks.0={name: math500, own: {file: x.jsonl, columns: {prompt: q}}}", r"'math500' is taken"),
        ("benchmarks.0.problems=null", r"benchmarks.0.problems: word_problems is generated; say how many"),
        ("benchmarks.0.where={steps: 2}", r"benchmarks.0.where: is for benchmarks of real data that are read by name"),
        ("benchmarks.0={name: x, own: {file: x.jsonl}, where: {level: 1}}", r"benchmarks.0.where: is for benchmarks"),
        ("benchmarks.0={name: math500, where: {level: [1]}}", r"benchmarks.0.where"),
        ("benchmarks.0={name: math500, where: {level: {from: 3, to: 1}}}", r"from 3 to 1 holds nothing"),
        ("benchmarks.0={name: math500, where: {level: {from: 3, to: 2024-01-01}}}", r"one is a date, the other a"),
        ("benchmarks.0={name: math500, where: {level: {from: '2024-8-1'}}}", r"'2024-8-1' is no date, such as"),
        ("benchmarks.0={name: math500, where: {level: {from: '20240801'}}}", r"'20240801' is no date, such as"),
        ("benchmarks.0={name: math500, where: {level: {to: '2025-01-31T07:00:00'}}}", r"T07:00:00' is no date, such"),
        ("benchmarks.0={name: math500, where: {level: {form: 3}}}", r"a window has from, to or both, and not form"),
        ("benchmarks.0={name: math500, where: {level: {}}}", r"a window has from, to or both, and not nothing"),
        ("benchmarks.0={name: math500, where: {level: {from: true}}}", r"True is no end of a window"),
        ("benchmarks.0={name: maths500, where: {level: 1}}", r"there is no benchmark 'maths500'"),
        ("benchmarks.0.split=dev_set", r"benchmarks.0.split"),
        ("data.sft=[]", r"data.sft names no source"),
        ("data.rl=[]", r"data.rl names no source"),
        ("data.sft.0.task=word_problem", r"data.sft.0.task: there is no task 'word_problem'"),
        ("data.sft.0.task=aime24", r"data.sft.0.task: aime24 has no 'train' split"),
        (
            "data.sft.0={file: x.jsonl, columns: {tests: cases}}",
            r"data.sft.0.columns.tests: no demonstration is tested; set verify: tests",
        ),
        ("sft.method={name: vcore, ema_decay: 0.5}", r"ema_decay: is for direction: ema, and the direction is fresh"),
        ("data.sft.0.file=x.jsonl", r"data.sft.0: set exactly one of task, file and hub"),
        ("data.benchmarks=[{name: aime24}]", r"data.benchmarks is filled from"),
        ("execution.device=gpu", r"execution.device: .*'auto', 'cpu' or 'cuda'"),
        ("grpo.rollout=vllm_server", r"grpo.server_url: the rollout vllm_server needs the address"),
        ("grpo.server_url=http://x", r"grpo.server_url: .*no other takes one"),
        ("grpo={steps: 2, rollout: transformers, sleep: true}", r"grpo.sleep: only the rollout vllm"),
        (
            "grpo.micro_batch_size=7",
            r"--set grpo.micro_batch_size=7: grpo.micro_batch_size: 7 does not divide the 128 completions",
        ),
    ],
)
def test_wrong_settings(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, override)


def test_errors_name_file_and_line_and_all_are_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text=CONFIG + "report: {tittle: x}\ngenerate:\n  engine: vlm\n")
    lines = str(caught.value).splitlines()
    number = CONFIG.count("\n") + 1
    assert lines[0].startswith(f"{tmp_path / 'c.yaml'}:{number + 2}: generate.engine") or lines[1].startswith(
        f"{tmp_path / 'c.yaml'}:{number + 2}: generate.engine"
    )
    assert any(line.startswith(f"{tmp_path / 'c.yaml'}:{number}: report.tittle: unknown setting") for line in lines)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=./nowhere"], r"model: model folder ./nowhere does not exist"),
        (["execution.device=cpu", "sft.dtype=bfloat16"], r"sft.dtype: bfloat16 is for GPUs"),
        (["execution.device=cpu", "grpo.sleep=true"], r"grpo.sleep: needs a GPU"),
        (["execution.device=cpu", "generate.dtype=bfloat16"], r"generate.dtype: bfloat16 is for GPUs"),
        (["benchmarks.0.max_new_tokens=512"], r"benchmarks.0.max_new_tokens: 512 new tokens leave no room"),
        (["sft.max_length=100000"], r"sft.max_length: 100000 is more than the model's"),
        (["grpo.max_completion_length=512"], r"grpo.max_completion_length: 512 new tokens leave no room"),
        (
            ["execution.device=cpu", "base.head_dim=48"],
            r"base.head_dim: vLLM on a CPU has no attention for heads of 48; it has 32, 64",
        ),
        (["sft.epochs=1e12"], r"sft.epochs: "),
        (["data.sft.0={file: none.jsonl}"], r"data.sft.0: file none.jsonl does not exist"),
        (
            ["benchmarks.0={name: aime24, max_new_tokens: 64}", "data_dir=/nowhere"],
            r"benchmark aime24: file /nowhere/.* does not exist",
        ),
        (["benchmarks.0={name: aime24, max_new_tokens: 64}"], r"benchmark aime24: needs .* from the hub"),
        (["model=Qwen/Qwen3-0.6B"], r"model: needs Qwen/Qwen3-0.6B from the hub"),
        (["model=my-model"], r"model: there is no folder my-model; as an id of the hub: needs my-model from the hub"),
        (["execution.min_free_gib=1e9"], r"execution.min_free_gib: .*GiB free"),
        (["home=/proc/nothing"], r"home: the store folder .* cannot be written"),
    ],
)
def test_what_needs_the_machine_is_checked_before_a_stage_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], message: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("VCORE_DATA_DIR", raising=False)
    monkeypatch.setattr(declaration, "cpu_flags", frozenset)  # a CPU that computes in float32 alone
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG)
    with pytest.raises(Exception, match=message) as caught:
        plan_only(path, [f"home={tmp_path / 'home'}", *overrides], Options())
    assert caught.value.exit_code == 2  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_plan_refuses_the_trainer_options_that_trl_refuses_and_remembers_what_was_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG)
    Store(tmp_path / "home")

    def planned(trainer: str) -> str:
        plan_only(path, [f"home={tmp_path / 'home'}", f"sft.trainer={trainer}"], Options())
        return capsys.readouterr().err

    for trainer, message in (
        ("{neftune_alpha: 5.0}", r"neftune_alpha: SFTConfig has no such option\nDid you mean neftune_noise_alpha"),
        ("{neftune_noise_alpha: much}", "neftune_noise_alpha: 'much' does not fit"),
        ("{learning_rate: 1e-4}", r"learning_rate: this option is set by the pipeline\nUse sft.learning_rate instead"),
    ):
        with pytest.raises(ConfigError, match=rf"sft.trainer: trainer.{message}"):
            planned(trainer)
    capsys.readouterr()
    assert "TRL is asked" in planned("{neftune_noise_alpha: 5.0}")
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **options: pytest.fail("asked again"))
    assert planned("{neftune_noise_alpha: 5.0}") == ""


def test_a_model_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG)
    with pytest.raises(ConfigError, match=r"model: .*no config.json"):
        plan_only(path, [f"home={tmp_path / 'home'}", f"model={tmp_path / 'model'}"], Options())


def test_vllm_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "vllm" else found(name, *a))
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG)
    config, _, plan = plan_only(
        path, [f"home={tmp_path / 'home'}", "generate.engine=transformers", "grpo.rollout=transformers"], Options()
    )
    with pytest.raises(ConfigError, match=r"generate.engine: vLLM is not installed\n.*transformers"):
        plan_only(path, [f"home={tmp_path / 'home'}"], Options())
    preflight(config, plan)


def test_a_local_model_has_no_revision(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model_revision: is for models of the hub, and .* is here; leave it out"):
        load(tmp_path, f"model={tmp_path}", "model_revision=abc")


def test_a_home_that_no_path_can_be(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ConfigError, match=r"home: .*loop is a link that leads to itself"):
        load(tmp_path, f"home={tmp_path}/loop")
    with pytest.raises(ConfigError, match=r"home: holds a null byte"):
        load(tmp_path, r'home="a\0b"')


def test_environment_variables_fill_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VCORE_DATA_DIR", str(tmp_path))
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG)
    assert load_config(path).data_folder == tmp_path
    assert load_config(path, ["data_dir=/elsewhere"]).data_dir == "/elsewhere"
