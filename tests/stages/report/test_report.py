"""The report stage as a program, on artifacts small enough to check every number by hand."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evaluation.records import Generation, Problem, Score, write_jsonl
from evaluation.statistics import wilson_interval

HOSTILE = "<script>alert('x')</script> & ```` \\boxed{3}"


def artifact(folder: Path, name: str, metrics: dict[str, Any] | None = None) -> Path:
    """A folder with the manifest that the orchestrator would have written."""
    folder.mkdir(parents=True)
    manifest = {
        "schema": 1,
        "stage": name.partition(".")[0],
        "name": name,
        "key": (name.encode().hex() * 8)[:64],
        "digest": ("ab" * 32),
        "preimage": {"settings": {"learning_rate": 0.002, "method": {"name": "vcore", "kl": 0.05}}},
        "files": [],
        "inputs": {"data": {"stage": "data", "key": "00" * 32, "digest": "cd" * 32}},
        "git": {"commit": "0123456789abcdef", "dirty": True},
        "versions": {"torch": "2.13.0"},
        "hardware": {"cpu": "a CPU", "cores": 2, "memory_gib": 24.0, "gpu": []},
        "started": "2026-01-01T00:00:00+00:00",
        "seconds": 12.0,
        "proof": {"ok": True},
        "metrics": metrics or {},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def scored(folder: Path, checkpoint: str, right: int, n: int = 20, protocol: str = "abc123") -> dict[str, Path]:
    """The generate and score artifacts of a checkpoint that answers the first `right` of `n` problems rightly."""
    generate = artifact(folder / f"generate.{checkpoint}", f"generate.{checkpoint}", {"output_tokens_per_s": 9000.0})
    score = artifact(folder / f"score.{checkpoint}", f"score.{checkpoint}")
    texts = [f"\\boxed{{{i}}}" if i < right else HOSTILE for i in range(n)]
    write_jsonl(
        generate / "generations.jsonl", [Generation("toy", f"p{i}", 0, f"prompt {i}", t, "stop", 5, 9, 0) for i, t in enumerate(texts)]
    )
    verdicts = ["correct" if i < right else "wrong" for i in range(n)]
    write_jsonl(score / "scores.jsonl", [Score("toy", f"p{i}", 0, v, "3", str(i)) for i, v in enumerate(verdicts)])  # type: ignore[arg-type]
    low, high = wilson_interval(right, n)
    counts = {"correct": right, "wrong": n - right, "no_answer": 0, "timeout": 0, "grader_error": 0}
    entry = {
        "metric": "accuracy",
        "value": right / n,
        "low": low,
        "high": high,
        "n": n,
        "k": 1,
        "verdicts": counts,
        "truncated": 0,
        "prompt_too_long": 0,
        "no_answer": 0,
        "protocol": protocol,
        "protocol_details": {"sampling": {"temperature": 0.0}},
    }
    (score / "metrics.json").write_text(json.dumps({"toy": entry}))
    return {f"generate.{checkpoint}": generate, f"score.{checkpoint}": score}


def data(folder: Path, n: int = 20) -> Path:
    made = artifact(folder / "data", "data")
    (made / "benchmarks").mkdir()
    write_jsonl(made / "benchmarks" / "toy.jsonl", [Problem(f"p{i}", "toy", "maths", f"question {i}", str(i)) for i in range(n)])
    return made


def run(folder: Path, inputs: dict[str, Path], **settings: Any) -> subprocess.CompletedProcess[str]:
    spec = {
        "stage": "report",
        "settings": {"title": "toy run", **settings},
        "inputs": {name: str(path) for name, path in inputs.items()},
        "output": str(folder / "out"),
        "state": str(folder / "state"),
        "seed": 7,
        "machine": {"device": "cpu", "threads": 1, "data_dir": None},
        "details": {"name": "toy", "command": "vcore run toy.yaml", "stages": [{"name": "sft", "state": "ran"}], "config": {}},
    }
    (folder / "out").mkdir(exist_ok=True)
    (folder / "spec.json").write_text(json.dumps(spec))
    return subprocess.run([sys.executable, "-m", "stages.report", str(folder / "spec.json")], capture_output=True, text=True)


def complete(folder: Path, base: int = 1, sft: int = 10, grpo: int = 19, sft_protocol: str = "abc123") -> dict[str, Path]:
    inputs = {"data": data(folder), "sft": artifact(folder / "sft", "sft"), "grpo": artifact(folder / "grpo", "grpo")}
    for name, curve in (("sft", {"uniform_loss": 1.0, "kl": 0.05}), ("grpo", {"reward": 0.5, "completions/mean_length": 30.0})):
        (inputs[name] / "record").mkdir()
        write_jsonl(inputs[name] / "record" / "metrics.jsonl", [{"step": step, **curve} for step in (1, 2, 3)])
    for checkpoint, right in (("base", base), ("sft", sft), ("grpo", grpo)):
        inputs |= scored(folder, checkpoint, right, protocol=sft_protocol if checkpoint == "sft" else "abc123")
    return inputs


def test_every_form_holds_the_numbers(tmp_path: Path) -> None:
    answer = run(tmp_path, complete(tmp_path))
    assert answer.returncode == 0, answer.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    low, high = wilson_interval(10, 20)
    sft = report["results"][1]
    assert (sft["checkpoint"], sft["benchmark"], sft["value"], sft["n"]) == ("sft", "toy", 0.5, 20)
    assert (sft["low"], sft["high"]) == (low, high)
    assert [c["verdict"] for c in report["comparisons"]] == ["higher", "higher"]
    assert report["comparisons"][0]["difference"] == pytest.approx(0.45)
    assert report["verdict"].startswith("toy: base 5.0 %; sft higher than base by 45.0 points")
    assert {s["name"]: s["state"] for s in report["stages"]}["sft"] == "ran"
    markdown = (tmp_path / "out" / "report.md").read_text()
    row = next(line for line in markdown.splitlines() if line.startswith("| toy | accuracy"))
    assert row == f"| toy | accuracy | 20 | 1 | 5.0 % [0.9, 23.6] | 50.0 % [{100 * low:.1f}, {100 * high:.1f}] | 95.0 % [76.4, 99.1] |"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<b>50.0 %</b>" in page
    assert "with uncommitted changes" in page


def test_page_stands_alone_and_escapes_what_models_write(tmp_path: Path) -> None:
    run(tmp_path, complete(tmp_path))
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    references = re.findall(r'(?:src|href)="([^"#][^"]*)"', page)
    assert references == [], "the page must not load anything"
    html.parser.HTMLParser(convert_charrefs=True).feed(page)
    assert page.count("<svg") == page.count("</svg>") == 3
    assert "currentColor" in page


def test_backticks_cannot_end_a_markdown_block(tmp_path: Path) -> None:
    run(tmp_path, complete(tmp_path))
    markdown = (tmp_path / "out" / "report.md").read_text()
    block = markdown[markdown.index("`````text") :]
    assert HOSTILE in block[: block.index("\n`````\n")]


@pytest.mark.parametrize(
    ("counts", "verdicts"),
    [((10, 10, 10), ["not distinguishable"] * 2), ((19, 1, 1), ["lower", "not distinguishable"]), ((1, 19, 1), ["higher", "lower"])],
)
def test_verdicts(tmp_path: Path, counts: tuple[int, int, int], verdicts: list[str]) -> None:
    run(tmp_path, complete(tmp_path, *counts))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [c["verdict"] for c in report["comparisons"]] == verdicts
    for verdict in verdicts:
        assert verdict in report["verdict"]


def test_scores_of_different_protocols_are_not_compared(tmp_path: Path) -> None:
    run(tmp_path, complete(tmp_path, sft_protocol="other"))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [c["verdict"] for c in report["comparisons"]] == ["different protocols"] * 2
    assert "difference" not in report["comparisons"][0]


def test_without_rl_and_without_transcripts(tmp_path: Path) -> None:
    inputs = {name: path for name, path in complete(tmp_path).items() if "grpo" not in name}
    assert run(tmp_path, inputs, transcripts=0).returncode == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {r["checkpoint"] for r in report["results"]} == {"base", "sft"}
    assert HOSTILE not in (tmp_path / "out" / "report.md").read_text()


def test_long_answers_are_cut_in_the_middle_and_say_so(tmp_path: Path) -> None:
    run(tmp_path, complete(tmp_path), transcript_characters=10)
    assert f"[... {len(HOSTILE) - 10} characters left out ...]" in (tmp_path / "out" / "report.md").read_text()


def test_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    inputs = complete(tmp_path)
    run(tmp_path, inputs)
    first = {name: (tmp_path / "out" / name).read_bytes() for name in ("report.md", "report.html", "report.json")}
    shutil.rmtree(tmp_path / "out")
    run(tmp_path, inputs)
    assert first == {name: (tmp_path / "out" / name).read_bytes() for name in first}


def test_a_damaged_input_is_one_clear_error(tmp_path: Path) -> None:
    inputs = complete(tmp_path)
    (inputs["score.sft"] / "scores.jsonl").write_text('{"benchmark": "toy"}\n')
    answer = run(tmp_path, inputs)
    assert answer.returncode == 1
    assert "scores.jsonl:1: not a Score" in json.loads((tmp_path / "error.json").read_text())["message"]
