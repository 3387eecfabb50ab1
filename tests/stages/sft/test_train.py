"""The SFT stage as a whole: what it writes and refuses, and that a stopped run ends in the same bytes as any other."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from stages.harness.context import Context, StageError, StageStopped
from stages.sft import run as sft
from stages.sft.settings import SftSettings
from stages.training.checkpoint import load_model_and_tokenizer
from stages.training.loop import find_resumable_checkpoint
from tests.tiny import (
    make_tiny_model,
    make_tiny_tokenizer,
    read_stage_run,
    run_stage_program,
    stage_environment,
    tiny_demonstrations,
    write_jsonl,
    write_spec,
)

MakeContext = Callable[..., Context[SftSettings]]
LONG = {
    "batch_size": 8,
    "micro_batch_size": 4,
    "learning_rate": 2e-3,
    "max_length": 128,
    "epochs": 10.0,
    "checkpoint_steps": 7,
}


def content(folder: Path) -> dict[str, str]:
    """Digest of every file of the payload, `record/` left out."""
    files = [
        path for path in sorted(folder.rglob("*")) if path.is_file() and "record" not in path.relative_to(folder).parts
    ]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def curve(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "record" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_the_program_trains_and_writes_the_same_bytes_each_time(sft_inputs: dict[str, Path], tmp_path: Path) -> None:
    settings = {"batch_size": 8, "learning_rate": 2e-3, "max_length": 128, "lora": {"rank": 2, "dropout": 0.1}}
    first, second = (
        run_stage_program(tmp_path / name, "sft", settings, sft_inputs) for name in ("first", "a_longer_name")
    )
    assert (first.code, first.error) == (0, None), first.log
    assert content(first.output) == content(second.output)
    strict = run_stage_program(tmp_path / "strict", "sft", settings, sft_inputs, deterministic=True)
    assert (strict.code, content(strict.output)) == (0, content(first.output)), "a CPU's kernels are deterministic"
    assert {
        "model/model.safetensors",
        "model/generation_config.json",
        "model/tokenizer.json",
        "model/chat_template.jinja",
    } <= set(content(first.output))
    assert {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"} <= set(content(first.output))
    result = json.loads((first.output / "record" / "result.json").read_text(encoding="utf-8"))
    assert result["proof"]["steps"] == result["proof"]["planned_steps"] == 5
    assert result["proof"]["relative_weight_change"] > 0
    assert [point["step"] for point in curve(first.output)] == [1, 2, 3, 4, 5]
    assert {"loss", "uniform_loss", "weighted_loss", "kl", "ess", "alpha", "grad_norm", "learning_rate"} <= set(
        curve(first.output)[0]
    )
    progress = [event for event in first.events if event["event"] == "progress"]
    assert (progress[-1]["step"], progress[-1]["total"]) == (5, 5)
    assert {"loss", "tokens_per_s"} <= set(progress[-1]["metrics"])


@pytest.mark.slow
@pytest.mark.parametrize("blow", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_program_resumes_to_the_same_bytes(
    sft_inputs: dict[str, Path], tmp_path: Path, blow: signal.Signals
) -> None:
    straight = run_stage_program(tmp_path / "straight", "sft", LONG, sft_inputs)
    assert straight.code == 0, straight.log
    folder = tmp_path / "stopped"
    spec = write_spec(folder, "sft", LONG, sft_inputs)
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.sft", str(spec)], env=stage_environment(), stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not (folder / "state" / "checkpoints" / "checkpoint-14").exists():  # so that checkpoint-7 is complete
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(blow)
    code = process.wait(timeout=60)
    assert code == (75 if blow == signal.SIGTERM else -signal.SIGKILL)
    assert not (folder / "output" / "record" / "result.json").exists()
    (folder / "events.jsonl").unlink()
    resumed = run_stage_program(folder, "sft", LONG, sft_inputs)
    assert resumed.code == 0, resumed.log
    assert any(note.startswith("resuming from step") for note in read_stage_run(folder, 0, "").notes)
    assert content(resumed.output) == content(straight.output)
    assert [point["step"] for point in curve(resumed.output)] == list(range(1, 51))
    numbers = [
        [(p["loss"], p["kl"], p["alpha"], p["learning_rate"]) for p in curve(run.output)] for run in (resumed, straight)
    ]
    assert numbers[0] == numbers[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"method": {"name": "vcore", "direction": "previous"}, "max_tokens_per_micro_batch": 300},
        {"method": {"name": "vcore", "direction": "momentum"}, "packing": True},
        {"method": {"name": "uniform"}, "lora": {"rank": 2, "dropout": 0.3}},
        {"method": {"name": "vcore"}, "lora": {"rank": 2, "dropout": 0.3}, "packing": True},
        {"method": {"name": "vcore", "utility": "jvp", "direction": "ema", "precondition": True}},
        {"method": {"name": "vcore", "preset": "official"}, "lora": {"rank": 2, "dropout": 0.3}},
        {"method": {"name": "iw_sft"}},
        {"method": {"name": "prift", "weights": "mass"}, "lora": {"rank": 2, "dropout": 0.3}},
        {"method": {"name": "asft"}, "max_tokens_per_micro_batch": 300},
        {"method": {"name": "asft", "kl": "reverse"}, "lora": {"rank": 2, "dropout": 0.3}},
        {"method": {"name": "random"}},
        {"method": {"name": "noise"}},
    ],
)
def test_a_requested_stop_saves_and_the_next_run_ends_the_same(
    sft_context: MakeContext, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    steps = {"max_steps": 12, "checkpoint_steps": 4, **settings}  # 5 steps an epoch: the stop falls inside the second
    straight = sft_context("straight", **steps)
    sft.run(straight)
    stopped = sft_context("stopped", **steps)
    original = stopped.curve

    def stop_at_seven(step: int, **values: float) -> None:
        original(step, **values)
        stopped.stop_requested = step >= 6

    monkeypatch.setattr(stopped, "curve", stop_at_seven)
    with pytest.raises(StageStopped):
        sft.run(stopped)
    assert [
        path.name
        for path in find_resumable_checkpoint(stopped.state / "checkpoints", print).iterdir()
        if "reweighting" in path.name
    ]  # type: ignore[union-attr]
    again = sft_context("stopped", **steps)
    assert again.resuming
    result = sft.run(again)
    assert result.proof["steps"] == 12
    assert content(again.output) == content(straight.output)
    assert [point["step"] for point in curve(again.output)] == list(range(1, 13))


@pytest.mark.slow
def test_a_run_that_ended_after_training_does_not_train_again(
    sft_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = sft_context("straight")
    sft.run(straight)
    context = sft_context("broken")
    with monkeypatch.context() as patch:
        patch.setattr(sft, "save_checkpoint", lambda *arguments: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            sft.run(context)
    again = sft_context("broken")
    sft.run(again)
    assert content(again.output) == content(straight.output)
    assert [point["step"] for point in curve(again.output)] == [1, 2, 3]
    shown, expected = (json.loads((run.record / "token_weights.json").read_text()) for run in (again, straight))
    assert [entry["step"] for entry in shown] == [0, 1, 2]
    assert shown == expected, "the report shows the weights of a run that was continued, too"


def test_merged_weights_are_base_plus_adapter(sft_context: MakeContext) -> None:
    context = sft_context(lora={"rank": 4, "alpha": 8, "dropout": 0.1, "targets": ["q_proj", "down_proj"]})
    result = sft.run(context)
    assert result.proof["merge_difference"] < 1e-5
    base, tokenizer = load_model_and_tokenizer(context.inputs["model"] / "model", "float32")
    merged, _ = load_model_and_tokenizer(context.output / "model", "float32")
    tokens = tokenizer("Mia has 3 coins", return_tensors="pt")
    with torch.no_grad():
        expected = PeftModel.from_pretrained(base, context.output / "adapter")(**tokens).logits
        assert torch.allclose(merged(**tokens).logits, expected, atol=1e-5)
    adapter = json.loads((context.output / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert adapter["base_model_name_or_path"] is None
    assert adapter["target_modules"] == ["down_proj", "q_proj"]


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, {"rank": 2}])
@pytest.mark.parametrize("utility", ["jvp", "central_difference"])
def test_bfloat16_trains_and_saves_bfloat16(
    sft_context: MakeContext, lora: dict[str, Any] | None, utility: str
) -> None:
    context = sft_context(dtype="bfloat16", lora=lora, method={"name": "vcore", "utility": utility})
    proof = sft.run(context).proof
    assert proof.get("merge_difference", 0.0) < 1e-5  # compared in float32
    assert json.loads((context.output / "model" / "config.json").read_text(encoding="utf-8"))["dtype"] == "bfloat16"
    points = curve(context.output)
    assert all(point["kl"] == pytest.approx(0.05, rel=1e-3) for point in points)
    for point in points if utility == "central_difference" else []:
        # Adapters on a random model cannot move its losses by 0.3: the step stops where they bend.
        change, bend = point["loss_change_rms"], point["loss_change_bend"]
        assert change == pytest.approx(0.3, rel=0.5) or bend == pytest.approx(1.0, rel=0.5)
        assert bend < 1.5


def data_folder(folder: Path, rows: list[Any]) -> Path:
    write_jsonl(folder / "sft.jsonl", rows)
    return folder


def test_rows_that_do_not_fit_are_counted_and_left_out(sft_context: MakeContext, tmp_path: Path) -> None:
    rows = tiny_demonstrations(10)
    rows[3]["prompt"][0]["content"] = "coins " * 200
    rows[4]["completion"][0]["content"] = "2+2=4. " * 100
    context = sft_context(inputs={"data": data_folder(tmp_path / "data", rows)}, epochs=1.0, max_steps=None)
    result = sft.run(context)
    assert (result.metrics["rows"], result.metrics["rows_left_out"], result.proof["steps"]) == (9, 1, 2)
    notes = read_stage_run(context.spec_path.parent, 0, "").notes
    assert any("1 of 10 rows left out" in note for note in notes)
    assert any("1 of 10 completions are cut" in note for note in notes)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no demonstrations"),
        ([{"id": "x", "prompt": [{"role": "user", "content": "a"}]}], "1: 'completion' must be"),
        ([*tiny_demonstrations(1), {"prompt": "text", "completion": "text"}], "2: 'prompt' must be"),
        (["text"], "1: expected a JSON object"),
    ],
)
def test_bad_demonstrations_are_named(sft_context: MakeContext, tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(StageError, match=message):
        sft.run(sft_context(inputs={"data": data_folder(tmp_path / "data", rows)}))


def test_lengths_that_leave_nothing_or_exceed_the_model_are_refused(sft_context: MakeContext) -> None:
    with pytest.raises(StageError, match="all 40 rows lose their whole completion"):
        sft.run(sft_context("short", max_length=10))
    with pytest.raises(StageError, match="max_length is 512, but the model has 256 positions"):
        sft.run(sft_context("long", max_length=512))


def test_a_template_that_never_ends_the_turn_is_refused(sft_context: MakeContext, tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "base" / "model")
    tokenizer = make_tiny_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "<|im_end|>\n{% endgeneration %}", "\n{% endgeneration %}"
    )
    tokenizer.save_pretrained(folder)
    with pytest.raises(StageError, match="40 completions are complete but hold no end-of-sequence token"):
        sft.run(sft_context(inputs={"model": tmp_path / "base"}))


def test_a_loss_that_is_not_finite_stops_the_run(sft_context: MakeContext) -> None:
    with pytest.raises(StageError, match=r"the loss is (nan|inf) at step"):
        sft.run(sft_context(learning_rate=1e30, method={"name": "uniform"}, max_steps=10))


def test_training_that_changes_nothing_fails(sft_context: MakeContext) -> None:
    with pytest.raises(StageError, match="the weights did not change in 3 steps"):
        sft.run(sft_context(learning_rate=1e-30))


@pytest.mark.slow
def test_the_first_the_middle_and_the_last_step_show_their_weights(sft_context: MakeContext) -> None:
    context = sft_context("run", method={"name": "vcore"}, max_steps=7)
    sft.run(context)
    taken = json.loads((context.record / "token_weights.json").read_text(encoding="utf-8"))
    assert [entry["step"] for entry in taken] == [0, 3, 6]
    for entry in taken:
        for row in entry["rows"]:
            assert len(row["tokens"]) == len(row["weights"]) == len(row["losses"])
            assert "\\boxed" in "".join(row["tokens"])
            assert sum(row["weights"]) == pytest.approx(len(row["weights"]), rel=1e-3)
    plain = sft_context("plain", method={"name": "uniform"})
    sft.run(plain)
    assert json.loads((plain.record / "token_weights.json").read_text(encoding="utf-8")) == []
