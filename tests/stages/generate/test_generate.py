"""The generate stage as a program: every sample once, the same after a kill, and one clear error for each bad input."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from evaluation.engines import InFlight, Sampled
from evaluation.harness import pace
from evaluation.records import Generation, Problem, read_records
from stages.generate import run as sample
from stages.generate.finished import Finished
from stages.generate.generation_config import with_generation_config
from stages.generate.plan import plan_prompts, protocol, read_problems
from stages.generate.settings import BenchmarkSettings, GenerateSettings
from stages.harness.context import StageError
from tests.stages.generate.conftest import problem
from tests.tiny import (
    make_tiny_tokenizer,
    open_stage,
    read_stage_run,
    run_stage_program,
    stage_environment,
    write_jsonl,
    write_spec,
)

BENCHMARKS: list[dict[str, Any]] = [
    {"name": "first", "max_new_tokens": 12},
    {"name": "second", "samples": 3, "temperature": 1.0, "max_new_tokens": 30, "problems": 6},
]


def generations(output: Path) -> list[Generation]:
    return read_records(output / "generations.jsonl", Generation)


@pytest.mark.slow
def test_vllm_and_transformers_write_every_sample_once_and_the_same_text(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    runs = {
        engine: run_stage_program(tmp_path / engine, "generate", {"engine": engine, "benchmarks": BENCHMARKS}, inputs)
        for engine in ("vllm", "transformers")
    }
    for engine, run in runs.items():
        assert (run.code, run.error) == (0, None), run.log
        rows = generations(run.output)
        expected = [("first", f"first-{i}", 0) for i in range(8)] + [
            ("second", f"second-{i}", k) for i in range(6) for k in range(3)
        ]
        assert [(row.benchmark, row.problem_id, row.sample) for row in rows] == expected
        too_long = [row for row in rows if row.finish_reason == "prompt_too_long"]
        assert [(row.problem_id, row.completion, row.completion_tokens) for row in too_long] == [("first-2", "", 0)] + [
            ("second-2", "", 0)
        ] * 3
        assert all(row.prompt_tokens > 256 for row in too_long)
        assert all(
            row.prompt.startswith("<|im_start|>user\n") and row.prompt.endswith("<|im_start|>assistant\n")
            for row in rows
        )
        assert {row.seed for row in rows if row.benchmark == "first"} == {None}
        assert len({row.seed for row in rows if row.benchmark == "second"}) == 18
        summary = json.loads((run.output / "summary.json").read_text(encoding="utf-8"))
        second = [row for row in rows if row.benchmark == "second"]
        assert summary["second"] == {
            "problems": 6,
            "samples": 18,
            "truncated": sum(row.finish_reason == "length" for row in second),
            "prompt_too_long": 3,
            "completion_tokens_mean": sum(row.completion_tokens for row in second) / 18,
        }
        assert (summary["protocol"]["second"]["engine"], summary["protocol"]["second"]["problems"]) == (engine, 6)
        result = json.loads((run.output / "record" / "result.json").read_text(encoding="utf-8"))
        assert result["proof"].pop("contract")["dtype"] == "float32"
        assert result["proof"] == {"samples_expected": 26, "samples_written": 26, "every_id_once": True}
        assert result["metrics"]["output_tokens_per_s"] > 0
        assert run.notes == ["2 of 14 prompts are longer than the context of 256 tokens and are not sampled"]
    assert [row for row in generations(runs["vllm"].output) if row.seed is None] == [
        row for row in generations(runs["transformers"].output) if row.seed is None
    ]
    shared = run_stage_program(tmp_path / "shared", "generate", {"benchmarks": BENCHMARKS, "data_parallel": 2}, inputs)
    assert (shared.code, shared.error) == (0, None), shared.log
    assert generations(shared.output) == generations(runs["vllm"].output)


@pytest.mark.slow
def test_a_killed_program_keeps_its_samples_and_draws_only_the_missing(inputs: dict[str, Path], tmp_path: Path) -> None:
    benchmarks = [{"name": "first", "samples": 30, "temperature": 1.0, "max_new_tokens": 60}]
    settings = {"engine": "transformers", "max_concurrent": 8, "benchmarks": benchmarks}
    straight = run_stage_program(tmp_path / "straight", "generate", settings, inputs)
    assert straight.code == 0, straight.log
    folder = tmp_path / "killed"
    spec = write_spec(folder, "generate", settings, inputs)
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.generate", str(spec)], env=stage_environment(), stderr=subprocess.DEVNULL
    )
    kept = folder / "state" / "samples.jsonl"
    deadline = time.monotonic() + 120
    while not kept.exists() or kept.stat().st_size < 2000:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    lines = kept.read_bytes().count(b"\n")
    assert 0 < lines < 210
    with open(kept, "a", encoding="utf-8") as file:
        file.write('{"benchmark": "first", "problem_id": "fir')  # a line that the kill cut
    resumed = run_stage_program(folder, "generate", settings, inputs)
    assert resumed.code == 0, resumed.log
    assert f"resuming: {lines} samples are kept, {210 - lines} are missing" in resumed.notes
    metrics = json.loads((resumed.output / "record" / "result.json").read_text(encoding="utf-8"))["metrics"]
    assert metrics["resumed_samples"] == lines
    for name in ("generations.jsonl", "summary.json"):
        assert (resumed.output / name).read_bytes() == (straight.output / name).read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 4}, "greedy samples"),
        ({"top_p": 0.9}, "greedy decoding ignores"),
        ({"stop": [""]}, "empty string"),
        ({"max_new_tokens": 0}, "greater than 0"),
        ({"temprature": 1.0}, "Extra inputs"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        BenchmarkSettings.model_validate({"name": "first", **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"engine": "transformers"}, "only the engine vllm can end a thought, not transformers"),
        ({"enable_thinking": False}, "enable_thinking is false"),
        ({"thinking_budget": -1}, "greater than or equal to 0"),
    ],
)
def test_a_thinking_budget_that_cannot_be_kept_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        GenerateSettings.model_validate({"thinking_budget": 8, **change})


def test_a_thinking_budget_is_part_of_chat_prompts_and_their_protocol() -> None:
    chat, program = ({"name": name, "prompt": name, "stop": []} for name in ("chat", "completion"))
    settings = GenerateSettings.model_validate({"benchmarks": [chat, program], "thinking_budget": 8})
    asked = Problem("p", "chat", "code", "Double.", "", meta={"completion": "def f(x):"})
    tokenizer = make_tiny_tokenizer()
    prompts = plan_prompts(settings, {"chat": [asked], "completion": [asked]}, tokenizer)
    assert [prompt.request(0, 0).thinking_budget for prompt in prompts] == [8, None]
    said = [protocol(settings, benchmark, 1, "", "", tokenizer, 256, "1") for benchmark in settings.benchmarks]
    assert [of_benchmark.get("thinking_budget") for of_benchmark in said] == [8, None]


def test_a_benchmark_stands_once() -> None:
    with pytest.raises(ValidationError, match="listed twice"):
        GenerateSettings.model_validate({"benchmarks": [{"name": "first"}, {"name": "first", "split": "dev"}]})


def test_bad_inputs_are_named(inputs: dict[str, Path], tmp_path: Path) -> None:
    def fails(where: dict[str, Path], **settings: Any) -> str:
        spec = write_spec(
            tmp_path / "run",
            "generate",
            {"engine": "transformers", "benchmarks": [{"name": "first"}], **settings},
            where,
        )
        with pytest.raises(StageError) as error:
            sample.run(open_stage(GenerateSettings, spec))
        shutil.rmtree(tmp_path / "run")
        return error.value.message

    assert "there is no benchmark" in fails(inputs, benchmarks=[])
    assert "there are no problems of third" in fails(inputs, benchmarks=[{"name": "third"}])
    assert "8 problems, 9 wanted" in fails(inputs, benchmarks=[{"name": "first", "problems": 9}])
    assert "config.json is missing" in fails({**inputs, "model": tmp_path})
    assert "no tokens of their own for <think>" in fails(inputs, engine="vllm", thinking_budget=8)
    assert "300 is more than the model's 256 positions" in fails(inputs, max_model_len=300)
    broken = tmp_path / "broken"
    shutil.copytree(inputs["model"], broken)
    (broken / "model" / "model.safetensors").write_bytes(b"not weights")
    assert "the model does not load" in fails({**inputs, "model": broken})
    (broken / "model" / "chat_template.jinja").unlink()
    assert "no chat template" in fails({**inputs, "model": broken})


def test_damaged_problems_are_named_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "benchmarks" / "first.jsonl"
    write_jsonl(path, [problem("first", 0, "a"), {"id": "first-1"}])
    with pytest.raises(StageError, match=r"first.jsonl:2: not a Problem"):
        read_problems(tmp_path, BenchmarkSettings(name="first"))
    write_jsonl(path, [problem("first", 0, "a"), problem("first", 0, "b")])
    with pytest.raises(StageError, match="stands there twice"):
        read_problems(tmp_path, BenchmarkSettings(name="first"))
    write_jsonl(path, [])
    with pytest.raises(StageError, match="0 problems, at least one wanted"):
        read_problems(tmp_path, BenchmarkSettings(name="first"))


def test_the_problems_digest_follows_the_lines_used(inputs: dict[str, Path]) -> None:
    few, digest = read_problems(inputs["data"], BenchmarkSettings(name="first", problems=2))
    assert len(few) == 2
    assert digest != read_problems(inputs["data"], BenchmarkSettings(name="first"))[1]


def test_the_date_in_a_prompt_is_pinned_said_and_part_of_the_protocol(inputs: dict[str, Path], tmp_path: Path) -> None:
    """And so is any other text of the prompts, where the template is the same."""
    dated = tmp_path / "dated"
    shutil.copytree(inputs["model"], dated)
    template = dated / "model" / "chat_template.jinja"
    template.write_text("{{ strftime_now('%d %b %Y %H:%M:%S.%f') }}\n" + template.read_text())

    def sampled(model: Path, **settings: Any) -> tuple[str, dict[str, Any], list[str]]:
        benchmarks = [{"name": "first", "problems": 2, "max_new_tokens": 4}]
        spec = write_spec(
            tmp_path / "run",
            "generate",
            {"engine": "transformers", "benchmarks": benchmarks, **settings},
            {**inputs, "model": model},
        )
        context = open_stage(GenerateSettings, spec)
        sample.run(context)
        summary = json.loads((context.output / "summary.json").read_text(encoding="utf-8"))
        run = read_stage_run(tmp_path / "run", 0, "")
        prompt = generations(run.output)[0].prompt
        shutil.rmtree(tmp_path / "run")
        return prompt, summary["protocol"]["first"], run.notes

    prompt, said, notes = sampled(dated)
    assert prompt.startswith("26 Jul 2024 00:00:00.000000\n")
    assert said["template_date"] == "2024-07-26"
    assert "the chat template asks for the date: it gets 2024-07-26" in notes
    assert sampled(dated)[:2] == (prompt, said)
    other, changed, _ = sampled(dated, template_date="2025-02-03")
    assert other.startswith("03 Feb 2025 ")
    assert {name for name in said if said[name] != changed[name]} == {"template_date", "prompts_sha256"}
    assert "template_date" not in sampled(inputs["model"])[1]


def test_the_checkpoints_own_sampling_only_where_it_is_asked_for(tmp_path: Path) -> None:
    asks, not_asks = (
        {"name": name, "from_generation_config": own} for name, own in (("aime24", True), ("amc23", False))
    )
    settings = GenerateSettings.model_validate({"benchmarks": [asks, not_asks]})
    (tmp_path / "generation_config.json").write_text('{"do_sample": true, "temperature": 0.6, "top_p": 0.95}')
    first, second = with_generation_config(settings, tmp_path).benchmarks
    assert (first.temperature, first.top_p, first.top_k) == (0.6, 0.95, 50)
    assert (second.temperature, second.top_p, second.top_k) == (0.0, 1.0, 0)
    (tmp_path / "generation_config.json").write_text(
        '{"temperature": 0.6}'
    )  # not sampled: greedy, whatever else it says
    assert with_generation_config(settings, tmp_path).benchmarks[0].temperature == 0
    (tmp_path / "generation_config.json").write_text(
        '{"repetition_penalty": 1.05, "no_repeat_ngram_size": 0, "min_p": 0.1, "top_p": null}'
    )
    greedy = with_generation_config(settings, tmp_path).benchmarks[0]
    assert (greedy.temperature, greedy.repetition_penalty, greedy.min_p) == (
        0.0,
        1.05,
        0.0,
    )  # a penalty holds in greedy decoding too
    (tmp_path / "generation_config.json").write_text(
        '{"do_sample": true, "repetition_penalty": 1.05, "min_p": 0.1, "top_k": 20}'
    )
    drawn = with_generation_config(settings, tmp_path).benchmarks[0]
    assert (drawn.repetition_penalty, drawn.min_p, drawn.top_k) == (1.05, 0.1, 20)
    tokenizer = make_tiny_tokenizer()
    for name, value in (("repetition_penalty", 1.05), ("min_p", 0.1)):
        assert protocol(settings, drawn, 1, "", "", tokenizer, 256, "1")[name] == value
        assert name not in protocol(settings, second, 1, "", "", tokenizer, 256, "1")
    several = GenerateSettings.model_validate({"benchmarks": [{**asks, "samples": 4}]})
    for declared, message in (
        ('{"temperature": 0.6}', "decodes greedily"),
        (
            '{"do_sample": true, "no_repeat_ngram_size": 3, "typical_p": 0.9}',
            "no_repeat_ngram_size: 3, typical_p: 0.9, which not every",
        ),
        ('{"do_sample": true, "top_p": "much"}', "generation_config.json: top_p: Input should be a valid number"),
        ("[]", "not a JSON object"),
    ):
        (tmp_path / "generation_config.json").write_text(declared)
        with pytest.raises(StageError, match=message):
            with_generation_config(several, tmp_path)
    with pytest.raises(StageError, match="cannot be read"):
        with_generation_config(settings, tmp_path / "nothing")
    with pytest.raises(ValueError, match="leave out temperature"):
        BenchmarkSettings.model_validate({**asks, "temperature": 0.6})


def test_progress_tells_what_is_in_flight_and_ends_with_every_sample(
    tmp_path: Path, inputs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow:
        max_model_len = 256
        told = threading.Event()

        def in_flight(self) -> InFlight:
            return InFlight(3, 21)

        def generate(self, requests: Any, on_done: Any) -> None:
            assert self.told.wait(30)
            for index in range(len(requests)):
                on_done(index, Sampled("3", 2, "stop"))

    slow: Any = Slow()

    def tell(step: int, total: int, phase: str, **metrics: Any) -> None:
        shown.append((step, total, phase, metrics))
        if len(shown) == 3:
            Slow.told.set()

    shown: list[Any] = []
    monkeypatch.setattr(pace, "EVERY_S", 0.01)
    ctx = open_stage(GenerateSettings, write_spec(tmp_path, "generate", {"benchmarks": BENCHMARKS[:1]}, inputs))
    monkeypatch.setattr(ctx, "progress", tell)
    problems, _ = read_problems(inputs["data"], ctx.settings.benchmarks[0])
    prompts = plan_prompts(ctx.settings, {"first": problems[:2]}, make_tiny_tokenizer())
    planned = {one for prompt in prompts for one in prompt.samples()}
    with Finished(ctx.state / "samples.jsonl", planned) as finished:
        assert sample._sample_missing(ctx, slow, prompts, finished) == 4
    assert [(step, total, phase) for step, total, phase, _ in shown[:3]] == [(0, 2, "sampling")] * 3
    assert shown[1][3].keys() >= {"tokens", "running", "waiting", "tokens_per_s"}
    assert (shown[1][3]["tokens"], shown[1][3]["running"]) == (21, 3)
    assert shown[-1][:2] == (2, 2)
