"""Retries of the executor, and what it asks of the launcher. The store is real; the tests say what a stage's process
does."""

import contextlib
import errno
from pathlib import Path
from typing import Any

import pytest

from pipeline.checks.preflight import preflight
from pipeline.core.errors import ConfigError, StageFailed, StoreError
from pipeline.launch import machine
from pipeline.launch.process import Launch
from pipeline.plan.decide import Decider, Options
from pipeline.plan.graph import Stage, build_graph
from pipeline.plan.planning import make_plan
from pipeline.run import execute
from pipeline.run.execute import Executor, smaller_micro_batch
from pipeline.run.view import View
from pipeline.store.mirror import Mirror
from pipeline.store.store import Lookup, Store
from stages.harness import documents
from stages.harness.documents import Spec, StageResult
from tests.pipeline.helpers import config, make, plan

ACCELERATE = Path(__file__).resolve().parents[3] / "configs" / "accelerate"
FAST = ("execution.retry_delay_s=0.0",)


def stages(tmp_path: Path, *overrides: str) -> dict[str, Stage]:
    return {stage.name: stage for stage in build_graph(config(tmp_path, *overrides))}


def run_sft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: list[StageFailed], *overrides: str
) -> list[dict[str, Any]]:
    """Force the sft stage of a cached pipeline; its process fails with each of `failures`, then succeeds. Returns what
    each attempt was given."""
    make(tmp_path)
    settings = config(tmp_path, *FAST, *overrides)
    attempts: list[dict[str, Any]] = []

    def run_process(how: Launch, spec: Spec, on_event: Any) -> StageResult:
        sizes = {"micro": spec.settings["micro_batch_size"], "tokens": spec.settings["max_tokens_per_micro_batch"]}
        attempts.append({**sizes, **vars(how)})
        if len(attempts) <= len(failures):
            raise failures[len(attempts) - 1]
        work = how.work
        (work / "out" / "model").mkdir(parents=True)
        (work / "out" / "model" / "weights").write_text("trained")
        return StageResult(proof={"steps": 4}, peak_memory_gib=1.25)

    monkeypatch.setattr(execute, "run_process", run_process)
    executor = Executor(Decider(settings, Store(settings.home_folder), Options(force=("sft",))), View(), command="")
    for stage in build_graph(settings):
        outcome = executor.ensure(stage)
        if stage.name == "sft":
            assert outcome.state == "ran"
            assert outcome.artifact.manifest.peak_memory_gib == outcome.as_json()["peak_memory_gib"] == 1.25
            break
    return attempts


def failure(cause: str) -> StageFailed:
    return StageFailed("sft", "it failed", cause=cause)


def test_out_of_memory_is_tried_again_with_half_the_micro_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = run_sft(tmp_path, monkeypatch, [failure("memory"), failure("memory")], "sft.batch_size=12")
    assert [attempt["micro"] for attempt in attempts] == [None, 6, 3]


def test_a_budget_of_tokens_is_halved_in_place_of_the_micro_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = run_sft(tmp_path, monkeypatch, [failure("memory")] * 2, "sft.max_tokens_per_micro_batch=1001")
    assert [(attempt["tokens"], attempt["micro"]) for attempt in attempts] == [(1001, None), (500, None), (250, None)]


def test_the_network_is_tried_again_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = run_sft(tmp_path, monkeypatch, [failure("network")])
    assert [attempt["micro"] for attempt in attempts] == [None, None]


@pytest.mark.parametrize("lost", ["engine", "node"])
def test_what_died_is_tried_again_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    attempts = run_sft(tmp_path, monkeypatch, [failure(lost)])
    assert [attempt["micro"] for attempt in attempts] == [None, None]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failures", "overrides", "tries"),
    [
        ([""], (), 1),
        (["network"] * 3, (), 3),
        (["network"], ("execution.retries=0",), 1),
        (["memory"], ("sft.batch_size=2", "sft.micro_batch_size=1"), 1),
    ],
)
def test_what_will_not_pass_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: list[str], overrides: tuple[str, ...], tries: int
) -> None:
    errors = [failure(cause) for cause in failures]
    with pytest.raises(StageFailed, match="it failed") as failed:
        run_sft(tmp_path, monkeypatch, errors, *overrides)
    assert failed.value is errors[tries - 1]


def test_micro_batches_divide_the_batch_and_its_processes(tmp_path: Path) -> None:
    sft = stages(tmp_path, "sft.batch_size=24")["sft"]
    assert smaller_micro_batch(sft, None, 1) == 12
    assert smaller_micro_batch(sft, None, 2) == 6
    assert smaller_micro_batch(sft, 1, 1) is None
    grpo = stages(tmp_path, "grpo.prompts_per_step=3", "grpo.num_generations=4")["grpo"]
    assert smaller_micro_batch(grpo, None, 1) == 6
    score = stages(tmp_path)["score.sft"]
    assert smaller_micro_batch(score, None, 1) is None


def test_limits_launch_and_gpus_reach_the_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VCORE_GPU_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setattr(machine, "gpus", lambda: ["a GPU"] * 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    (attempt,) = run_sft(
        tmp_path,
        monkeypatch,
        [],
        "execution.time_limit_s={sft: 60.0}",
        "execution.launch={sft: {kind: torchrun, processes: 2}}",
    )
    assert attempt["time_limit_s"] == 60.0
    assert attempt["settings"].processes == 2
    assert attempt["environment"]["CUDA_VISIBLE_DEVICES"] == "3,5"
    assert len(attempt["locks"]) == 3, "the key's lock and the GPUs'"


def test_a_stage_leases_what_it_computes_on_and_leaves_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VCORE_GPU_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setattr(machine, "gpus", lambda: ["a GPU"] * 8)
    (attempt,) = run_sft(tmp_path, monkeypatch, [])
    assert attempt["environment"]["CUDA_VISIBLE_DEVICES"] == "0", "one process that saw more would refuse to train"
    launch = "execution.launch={grpo: {kind: torchrun, processes: 4}, base: {kind: slurm, sbatch: [--gres=gpu:1]}}"
    settings = config(tmp_path, launch, "generate.tensor_parallel=2", "generate.data_parallel=3")
    leased = {stage.name: machine.leased_gpus(settings.execution, stage) for stage in build_graph(settings)}
    assert leased == {
        **dict.fromkeys(("data", "base", "score.base", "score.sft", "score.grpo", "report"), 0),
        **dict.fromkeys(("generate.base", "generate.sft", "generate.grpo"), 6),
        **{"sft": 1, "grpo": 4},
    }


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "execution.time_limit_s={sgt: 60.0}",
            r"execution\.time_limit_s\.sgt: this pipeline has no stage 'sgt'; did you mean 'sft'",
        ),
        (
            "execution.time_limit_s={generate: 60.0, generate.sfd: 60.0}",
            "no stage 'generate.sfd'; did you mean 'generate.sft'",
        ),
        (
            "execution.launch={score.sft: {kind: torchrun, processes: 2}}",
            "score.sft is one process; sft and grpo can be several",
        ),
        ("execution.launch={sft: {kind: accelerate, config: none.yaml}}", "file none.yaml does not exist"),
        (
            f"execution.launch={{sft: {{kind: accelerate, processes: 2, config: {ACCELERATE / 'zero2.yaml'}}}}}",
            r"sft cannot have its model split by DEEPSPEED, as .*zero2.yaml asks",
        ),
        (
            f"execution.launch={{sft: {{kind: accelerate, processes: 2, config: {ACCELERATE.parent / 'demo.yaml'}}}}}",
            "demo.yaml is no configuration of accelerate's",
        ),
        ("execution.launch={sft: {kind: slurm}}", "there is no sbatch on this machine"),
    ],
)
def test_impossible_launches_are_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str, message: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # without sbatch
    settings = config(tmp_path, override)
    with pytest.raises(ConfigError, match=message):
        preflight(settings, make_plan(settings, Store(settings.home_folder)))


def test_a_kind_of_stage_stands_for_all_of_its_stages(tmp_path: Path) -> None:
    settings = config(
        tmp_path,
        "execution.time_limit_s={generate: 60.0, generate.sft: 90.0}",
        "execution.launch={score: {kind: slurm, sbatch: [--time=1]}}",
    ).execution
    limits = {name: settings.time_limit_of(name) for name in ("generate.base", "generate.sft", "sft")}
    assert limits == {"generate.base": 60.0, "generate.sft": 90.0, "sft": None}
    assert [settings.launch_of(name).kind for name in ("score.base", "score.sft", "sft")] == ["slurm", "slurm", "local"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("execution.launch={sft: {processes: 2}}", "one local process is one"),
        ("execution.launch={sft: {kind: accelerate}}", "accelerate needs a file"),
        ("execution.time_limit_s={sft: 0.0}", "must be above 0"),
    ],
)
def test_settings_that_contradict_themselves(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(tmp_path, override)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["generate.data_parallel=2", "generate.tensor_parallel=2"],
            r"generate.data_parallel: 2 engines of 2 GPUs need 4",
        ),
        (["generate.data_parallel=2", "execution.gpus=1"], r"need 2, and a stage has 1"),
        (["execution.launch={sft: {kind: torchrun, processes: 3}}", "sft.batch_size=3"], r"3 processes need 3 GPUs"),
        (["grpo.tensor_parallel=2"], r"grpo.tensor_parallel: an engine of 2 GPUs .* has 1"),
        (["grpo.tensor_parallel=2", "execution.launch={grpo: {kind: torchrun, processes: 2}}"], None),
        (["generate.data_parallel=2"], None),
    ],
)
def test_engines_need_the_gpus_of_a_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], message: str | None
) -> None:
    monkeypatch.setattr(machine, "gpus", lambda: ["NVIDIA H200, 143771 MiB"] * 2)
    settings = config(tmp_path, "grpo={max_completion_length: 64}", *overrides)
    with pytest.raises(ConfigError, match=message) if message else contextlib.nullcontext():
        preflight(settings, make_plan(settings, Store(settings.home_folder)))


@pytest.mark.parametrize("remade", [False, True])
def test_two_runs_that_find_the_same_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remade: bool) -> None:
    """Between this run's look and its lock, another one sets the damaged artifact aside, and may have made it again
    already."""
    make(tmp_path, until="data")
    settings, store = config(tmp_path), Store(tmp_path / "home")
    key = str(plan(tmp_path)["data"].key)
    (store.folder("data", key) / "sft.jsonl").write_text("damaged")
    look, looks = Store.find, []

    def find(self: Store, program: str, key: str, **options: Any) -> Lookup:
        result = look(self, program, key, **options)
        looks.append(result)
        if len(looks) == 1:
            Store(tmp_path / "home").set_aside(program, key)
            if remade:
                make(tmp_path, until="data")
        return result

    made = []

    def run_process(how: Launch, spec: Spec, on_event: Any) -> StageResult:
        made.append(how.stage)
        (how.work / "out").mkdir(parents=True)
        (how.work / "out" / "sft.jsonl").write_text("made again")
        return StageResult(proof={"rows": 1})

    monkeypatch.setattr(execute, "run_process", run_process)
    monkeypatch.setattr(Store, "find", find)
    outcome = Executor(Decider(settings, store), View(), command="").ensure(build_graph(settings)[0])
    assert looks[0].damage
    assert (outcome.state, made) == (("cached", []) if remade else ("ran", ["data"]))
    assert look(store, "data", key).artifact is not None


def test_a_forced_stage_that_meets_a_full_disk_leaves_the_earlier_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, until="data")
    settings, store = config(tmp_path), Store(tmp_path / "home")
    before = plan(tmp_path)["data"].artifact

    def run_process(how: Launch, spec: Spec, on_event: Any) -> StageResult:
        (how.work / "out").mkdir(parents=True)
        (how.work / "out" / "sft.jsonl").write_text("new")
        return StageResult(proof={"rows": 1})

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "manifest.json")

    monkeypatch.setattr(execute, "run_process", run_process)
    monkeypatch.setattr(documents, "write_json", full)
    with pytest.raises(
        StoreError, match=r"stage data: cannot write below .*No space left on device \(manifest.json\)\nFree some"
    ):
        Executor(Decider(settings, store, Options(force=("data",))), View(), command="").ensure(
            build_graph(settings)[0]
        )
    assert before is not None
    assert store.find("data", before.key).artifact == before


def test_plan_and_run_agree_on_what_is_mirrored_and_what_would_be_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is exactly asked for, on the mirror, comes before what was made last with another version."""
    make(tmp_path, until="data")
    triggers = ("config", "inputs", "code")
    old = plan(tmp_path)["data"].artifact
    monkeypatch.setattr("pipeline.plan.interpreters.library_versions", lambda libraries, exact: {"torch": "9.9"})
    settings = config(tmp_path, f"execution.mirror=file://{tmp_path / 'mirror'}")
    store = Store(tmp_path / "home")
    make(tmp_path, until="data", content="9.9")
    new = plan(tmp_path)["data"].artifact
    assert old is not None
    assert new is not None
    Mirror(f"file://{tmp_path / 'mirror'}").push(new)
    store.set_aside("data", new.key)
    store.remember("small", "data", old.manifest)
    planned = make_plan(settings, store, Options(triggers=triggers))[0]
    outcome = Executor(Decider(settings, store, Options(triggers=triggers)), View(), command="").ensure(
        build_graph(settings)[0]
    )
    assert planned.key == outcome.artifact.key == new.key
    assert planned.reason.startswith("fetched from")
    store.set_aside("data", new.key)
    store.remember("small", "data", old.manifest)
    (tmp_path / "mirror").rename(tmp_path / "gone")
    planned = make_plan(settings, store, Options(triggers=triggers))[0]
    outcome = Executor(Decider(settings, store, Options(triggers=triggers)), View(), command="").ensure(
        build_graph(settings)[0]
    )
    assert planned.key == outcome.artifact.key == old.key
    assert "torch" in outcome.accepted
