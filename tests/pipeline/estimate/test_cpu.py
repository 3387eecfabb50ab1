"""Time, memory and disk on a CPU: the counting on given speeds, and the whole command on this machine's own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from evaluation.engines.vllm_internals import BATCHED_TOKENS
from pipeline.cli.app import app
from pipeline.cli.planning import estimate
from pipeline.core.errors import ConfigError
from pipeline.estimate.cpu import HEAP, SAMPLES, TRAINS, Cost, CpuEstimate
from pipeline.estimate.lengths import Counter
from pipeline.estimate.measure import Measured, Seconds
from pipeline.estimate.shape import shape_of
from pipeline.plan.planning import make_plan
from pipeline.store.documents import Manifest
from pipeline.store.store import Artifact, Store
from stages.harness.stopwatch import Stopwatch
from stages.training.speed import LEAST_TOKENS, WARM_UP, TrainingSpeed, _measurable
from tests.pipeline.helpers import config
from tests.stages.base.test_gguf import write_gguf
from tests.tiny import make_tiny_model, write_jsonl

TRAINING = Measured(
    {"step_s": Seconds(0.003, 0.002), "forward_s": Seconds(0.001, 0.001), "optimizer_s": Seconds(0.5, 0.5)},
    {"rest_gib": 1.0, "token_gib": 0.001, "others": 0.0},
    peak_gib=2.0,
)
SAMPLING = Measured(
    {"load_s": Seconds(10, 10), "prompt_s": Seconds(0.001, 0.001), "token_s": Seconds(0.01, 0.01)},
    {"libraries_gib": 1.0, "engine_gib": 1.5, "read_gib": 0.0, "others": 0.0},
    peak_gib=2.5,
)


def costs(
    tmp_path: Path, *overrides: str, asked: list[Any] | None = None, ended: dict[str, float] | None = None
) -> dict[str, Cost]:
    """The estimate of the small pipeline on a machine of the speeds above; `asked` gets what was to be measured, and
    `ended` is how long completions were, by benchmark."""

    def measure(program: str, kind: dict[str, Any], size: dict[str, Any]) -> Measured:
        if asked is not None:
            asked.append((program, kind | size))
        return {TRAINS: TRAINING, SAMPLES: SAMPLING}[program]

    settings = config(tmp_path, *overrides)
    plan = make_plan(settings, Store(settings.home_folder))
    estimate = CpuEstimate(settings, plan, shape_of(settings), measure)
    estimate.ended = ended or {}
    found = estimate.costs()
    return {cost.planned.stage.name: cost for cost in found}


def place(tmp_path: Path) -> float:
    """GiB that a token takes in the small pipeline's cache."""
    return shape_of(config(tmp_path)).kv_bytes * 2 / 2**30


def test_sft_takes_its_steps_its_rows_and_its_method(tmp_path: Path) -> None:
    plain = costs(tmp_path, "sft.method={name: uniform}")["sft"]
    tokens = 4 * 32 * 256  # max_steps, batch_size, max_length
    assert plain.total == Seconds(pytest.approx(tokens * 0.003 + 2), pytest.approx(tokens * 0.002 + 2))
    assert plain.at_most, "no row was looked at: each is taken to be as long as it may be"
    assert plain.memory_gib == pytest.approx(1 + HEAP * 0.001 * 32 * 256)
    default = costs(tmp_path)["sft"]
    assert default.total.quiet == pytest.approx(tokens * (0.002 * 9 / 8 + 0.001) + 2), "a probe, and a forward pass"
    parts = costs(tmp_path, "sft.micro_batch_size=4")["sft"]
    assert parts.memory_gib == pytest.approx(1 + HEAP * 0.001 * 4 * 256)
    budget = costs(tmp_path, "sft.max_tokens_per_micro_batch=1300")["sft"]
    assert budget.memory_gib == pytest.approx(1 + HEAP * 0.001 * 5 * 256), "as many rows of 256 as a budget holds"
    epochs = costs(tmp_path, "sft.max_steps=null", "sft.epochs=2", "sft.method={name: uniform}")["sft"]
    assert epochs.total.quiet == pytest.approx(2 * 64 * 256 * 0.002 + 4 * 0.5), "64 rows, two steps an epoch"


def test_rl_is_split_into_sampling_and_training(tmp_path: Path) -> None:
    grpo = costs(tmp_path, "grpo.beta=0.1")["grpo"]
    completions = 2 * 16 * 8
    read = completions / 8 * (150 + 7 * 22)  # four blocks of 32 tokens are computed once, and 22 tokens for each sample
    assert grpo.times["generate"].quiet == pytest.approx(read * 0.001 + completions * 64 * 0.01)
    assert grpo.times["train"].quiet == pytest.approx(completions * 214 * (0.002 + 0.001) + 2 * 0.5), "a reference"
    twice = costs(tmp_path, "grpo.num_iterations=2")["grpo"].times["train"].quiet
    assert twice == pytest.approx(completions / 2 * 214 * (2 * 0.002 + 0.001) + 2 * 0.5), "a pass for the sampler"
    engine = 1.5 + place(tmp_path) * 128 * 214
    assert grpo.memory_gib == pytest.approx(1 + HEAP * 0.001 * 128 * 214 + engine), "it is in the trainer's process"
    shared = costs(tmp_path, "grpo.share_prompts=true")["grpo"]
    assert shared.times["train"].quiet == pytest.approx(completions / 8 * (150 + 8 * 64) * 0.002 + 2 * 0.5)
    assert shared.memory_gib == pytest.approx(1 + HEAP * 0.001 * 16 * (150 + 8 * 64) + engine)
    alone = costs(tmp_path, "grpo.rollout=vllm_server", "grpo.server_url=http://other:8000")["grpo"]
    assert list(alone.times) == ["train"]


def test_rl_is_counted_with_completions_as_long_as_they_were(tmp_path: Path) -> None:
    """On RL's own prompts, or else on the benchmark of the same task; a limit stands for what is not known."""
    assert costs(tmp_path)["grpo"].at_most
    for ended in ({"word_problems": 20.0}, {"rl": 20.0, "word_problems": 60.0}):
        grpo = costs(tmp_path, ended=ended)["grpo"]
        assert not grpo.at_most
        assert grpo.memory_gib == pytest.approx(1 + HEAP * 0.001 * 128 * 170 + 1.5 + place(tmp_path) * 128 * 170)
        assert grpo.times["train"].quiet == pytest.approx(2 * 128 * 170 * 0.002 + 2 * 0.5)
    assert costs(tmp_path, ended={"gsm8k": 20.0})["grpo"].at_most, "of other problems"


def test_an_evaluation_loads_reads_and_samples(tmp_path: Path) -> None:
    asked: list[Any] = []
    generate = costs(tmp_path, "benchmarks.0.samples=3", "benchmarks.0.temperature=1.0", asked=asked)["generate.base"]
    assert generate.total.quiet == pytest.approx(10 + 20 * (150 + 2 * 22) * 0.001 + 60 * 64 * 0.01)
    other = costs(tmp_path, "benchmarks.0.samples=3", "benchmarks.0.temperature=1.0", "generate.engine=transformers")
    assert other["generate.base"].total.quiet == pytest.approx(10 + 60 * (150 * 0.001 + 64 * 0.01))
    assert generate.at_most
    assert generate.memory_gib == pytest.approx(2.5 + place(tmp_path) * 60 * 214)
    settings = next(settings for program, settings in asked if program == SAMPLES)
    assert settings["at_once"] == 60


def test_an_engine_takes_what_it_reads_at_once_and_fills_of_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SAMPLING.numbers, "read_gib", 1e-4)
    size, sets = place(tmp_path), ("benchmarks.0.samples=20", "benchmarks.0.temperature=1.0")
    few = costs(tmp_path, *sets, "generate.max_concurrent=100")["generate.base"]
    assert few.memory_gib == pytest.approx(2.5 + (1e-4 - size) * 15_000 + size * 21_400)
    many = costs(tmp_path, *sets, "generate.max_concurrent=400")["generate.base"]
    assert many.memory_gib == pytest.approx(2.5 + (1e-4 - size) * BATCHED_TOKENS + size * 400 * 214), "in passes"
    monkeypatch.setattr("pipeline.estimate.cpu.BYTES", {"float32": 4 / size / 1000, "bfloat16": 2})
    assert costs(tmp_path, *sets)["generate.base"].memory_gib == pytest.approx(2.5 + 1), "no more than the cache has"


def artifact(folder: Path) -> Artifact:
    return Artifact(folder, Manifest.model_construct(key="", files=[]))


def test_texts_are_counted_with_the_tokenizer_once_it_is_there(tmp_path: Path) -> None:
    user = {"role": "user", "content": "two and two"}
    rows = [{"prompt": [user], "completion": [{"role": "assistant", "content": "4" * size}]} for size in (30, 60)]
    write_jsonl(tmp_path / "sft.jsonl", rows)
    texts = Counter(artifact(tmp_path), None).texts("sft.jsonl")
    assert texts is not None
    assert (texts.number, texts.prompt, texts.completion) == (2, pytest.approx(11 / 3), 15.0)
    assert texts.longest == pytest.approx(11 / 3 + 20)
    base = artifact(tmp_path / "base")
    make_tiny_model(base.folder / "model")
    exact = Counter(artifact(tmp_path), base).texts("sft.jsonl")
    assert exact is not None
    assert exact.completion == 46, "a digit is a token, and so is the end of the turn"
    assert exact.prompt > len("two and two") / 3 + 4, "with the template's tokens"
    assert Counter(None, base).texts("sft.jsonl") is None
    assert Counter(artifact(tmp_path), base).texts("rl.jsonl") is None


def test_what_does_not_fit_is_said_and_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = psutil.virtual_memory()._replace(available=2**30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: there)
    asked: list[Any] = []
    found = costs(tmp_path, "model=make", asked=asked)
    assert [program for program, _ in asked] == [TRAINS], "only the base model, whose size is checked elsewhere"
    for name in ("sft", "grpo", "generate.sft"):
        assert "of memory" in found[name].note
        assert found[name].memory_gib is not None
        assert not found[name].times


def test_a_model_too_large_to_measure_takes_no_time_that_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_tiny_model(tmp_path / "model", hidden_size=128)
    there = psutil.virtual_memory()._replace(available=2**30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: there)
    config(tmp_path)  # writes small.yaml
    sets = [word for override in (f"model={model}", f"home={tmp_path / 'home'}") for word in ("--set", override)]
    done = CliRunner().invoke(app, ["plan", str(tmp_path / "small.yaml"), "--estimate", *sets])
    assert done.exit_code == 0, done.output
    assert "All that is to run: nothing was measured; not counted: data, base" in done.stdout
    assert "±" not in done.stdout


def test_a_busy_machine_is_told_from_a_slow_one() -> None:
    watch = Stopwatch(threads=2)
    watch.seconds, watch.others, watch._cores = 8.0, 0.75, 4
    assert watch.each(2) == [4.0, 2.0], "one core was left of the two that it can use"
    watch.others = 0.25
    assert watch.each() == [8.0, 8.0], "three are more than it can use"


def test_the_shape_of_a_gguf_file_is_that_of_its_checkpoint(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    source = make_tiny_model(tmp_path / "source", hidden_size=16)  # heads wider than the hidden size shared out
    file = write_gguf(source, tmp_path / "model.gguf")
    shape = shape_of(config(tmp_path, f"model={file}"))
    assert shape.parameters == AutoModelForCausalLM.from_pretrained(source).num_parameters()
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(ConfigError, match="damaged"):
        shape_of(config(tmp_path, f"model={file}"))


@pytest.mark.slow
def test_the_command_measures_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config(tmp_path)  # writes small.yaml
    command = ["plan", str(tmp_path / "small.yaml"), "--estimate", "--set", f"home={tmp_path / 'home'}"]
    done = CliRunner().invoke(app, [*command, "--set", "sft.dtype=float32", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    stages = {stage["stage"]: stage for stage in found["stages"]}
    timed = {name for name, stage in stages.items() if stage["seconds"] > 0}
    assert timed == {"base", "sft", "grpo", "generate.base", "generate.sft", "generate.grpo"}
    assert found["total"]["seconds"] == pytest.approx(sum(stage["seconds"] for stage in stages.values()))
    assert found["total"]["seconds"] < 600, "it is a matter of seconds"
    assert all(stage["plus_minus"] >= estimate.UNCERTAIN for stage in stages.values() if stage["seconds"])
    assert set(stages["grpo"]["parts"]) == {"generate", "train"}
    assert 0.3 < stages["sft"]["memory_gib"] < stages["grpo"]["memory_gib"] < found["memory_gib"]
    assert 0 < found["disk_gib"] < found["disk_free_gib"]
    assert set(found["measured"]) == {"training in float32", "sampling in float32"}


def at_work_on(folder: Path) -> list[psutil.Process]:
    """Processes whose command names a file below the folder."""
    return [one for one in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(one.info["cmdline"] or [])]


@pytest.mark.slow
def test_what_measures_ends_with_the_command(tmp_path: Path) -> None:
    config(tmp_path)
    measured = tmp_path / "measured"
    measured.mkdir()
    command = [sys.executable, "-m", "pipeline", "plan", str(tmp_path / "small.yaml"), "--estimate"]
    environment = {**os.environ, "TMPDIR": str(measured)}
    asked = subprocess.Popen([*command, "--set", f"home={tmp_path / 'home'}"], env=environment, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 120
        while not at_work_on(measured):
            assert asked.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        asked.send_signal(signal.SIGTERM)
        _, printed = asked.communicate(timeout=60)
    finally:
        asked.kill()
    assert asked.returncode == 130, printed
    assert b"Traceback" not in printed
    assert not at_work_on(measured)


def test_a_busy_machine_is_measured_on_tokens_enough_to_tell_their_memory() -> None:
    settings = TrainingSpeed(rows=32, length=107)
    warm = Stopwatch(threads=2)
    warm._cores, warm.seconds, warm.others = 2, 0.5, 0.0
    assert _measurable(settings, warm, WARM_UP) == (14, 107)
    warm.seconds, warm.others = 4.0, 0.88
    assert _measurable(settings, warm, WARM_UP) == (7, 107)
    warm.seconds = 40.0
    assert _measurable(settings, warm, WARM_UP) == (LEAST_TOKENS // 107, 107)
    assert _measurable(settings.model_copy(update={"length": 20}), warm, 20) == (12, 20)
    assert _measurable(settings.model_copy(update={"rows": 1, "length": 5000}), warm, WARM_UP) == (1, LEAST_TOKENS)
