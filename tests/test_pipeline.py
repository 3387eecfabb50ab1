"""The complete demo pipeline at reduced size, as a user runs it: the `vcore` command, real TRL, real vLLM, real
Prefect.

The recipe is cut to what fits a test, so accuracy is not asserted here; that every number in the report comes from the
artifacts is.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.prefect_server import query

ROOT = Path(__file__).resolve().parents[1]
REDUCED = [
    "execution.stages_at_once=2",
    "base.steps=60",
    "base.min_accuracy=0.0",
    "sft.epochs=null",
    "sft.max_steps=24",
    "sft.checkpoint_steps=4",
    "grpo.steps=3",
    "grpo.warmup_steps=1",
    "grpo.prompts_per_step=4",
    "benchmarks.0.problems=40",
    "benchmarks.1.problems=16",
    "execution.stages_at_once=1",
]
ORDER = [
    "data",
    "base",
    "generate.base",
    "score.base",
    "sft",
    "generate.sft",
    "score.sft",
    "grpo",
    "generate.grpo",
    "score.grpo",
    "report",
]
pytestmark = pytest.mark.slow


def vcore(home: Path, *arguments: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
    environment = (
        {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")} | {"VCORE_HOME": str(home)} | (env or {})
    )
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", *arguments],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def demo(home: Path, *arguments: str, command: str = "run", **options: Any) -> tuple[int, str, str]:
    sets = [word for override in REDUCED for word in ("--set", override)]
    process = vcore(home, command, "configs/demo.yaml", *sets, *arguments, **options)
    out, err = process.communicate(timeout=900)
    return process.returncode, out, err


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder in which the reduced demo has run once."""
    folder = tmp_path_factory.mktemp("home")
    code, out, err = demo(folder, "--json")
    assert code == 0, err
    (folder / "first.json").write_text(out)
    return folder


@pytest.fixture(scope="session")
def first(home: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((home / "first.json").read_text())
    return result


def test_every_stage_ran_and_the_report_holds_every_result(home: Path, first: dict[str, Any]) -> None:
    assert [s["name"] for s in first["stages"]] == ORDER
    cached = {s["name"] for s in first["stages"] if s["state"] == "cached"}
    assert cached <= {"score.sft", "score.grpo"}, "only where two checkpoints gave the very same answers"
    cells = {(r["checkpoint"], r["benchmark"]) for r in first["results"]}
    assert cells == {(c, b) for c in ("base", "sft", "grpo") for b in ("word_problems", "tiny_code")}
    folders = {s["name"]: Path(s["folder"]) for s in first["stages"]}
    for result in first["results"]:
        scores = [
            json.loads(line)
            for line in (folders[f"score.{result['checkpoint']}"] / "scores.jsonl").read_text().splitlines()
        ]
        mine = [s for s in scores if s["benchmark"] == result["benchmark"]]
        assert result["n"] == len(mine)
        assert result["value"] == pytest.approx(sum(s["verdict"] == "correct" for s in mine) / len(mine))
        assert result["low"] <= result["value"] <= result["high"]
    page = Path(first["report"]).read_text()
    assert "word_problems" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_manifests_prove_what_was_done(first: dict[str, Any]) -> None:
    for stage in first["stages"]:
        manifest = json.loads((Path(stage["folder"]) / "manifest.json").read_text())
        assert manifest["proof"]
        assert manifest["key"] == stage["key"]
        assert {f["path"] for f in manifest["files"]} >= {"record/result.json", "record/stage.log"}
    sft = json.loads((Path(first["stages"][4]["folder"]) / "manifest.json").read_text())
    assert sft["proof"]["steps"] == sft["proof"]["planned_steps"] == 24
    assert sft["preimage"]["settings"]["method"]["name"] == "vcore"


def test_second_run_computes_nothing_and_ends_within_seconds(home: Path, first: dict[str, Any]) -> None:
    started = time.monotonic()
    code, out, err = demo(home, "--json")
    seconds = time.monotonic() - started
    assert code == 0, err
    second = json.loads(out)
    assert {s["state"] for s in second["stages"]} == {"cached"}
    assert second["results"] == first["results"]
    assert seconds < 30, "no stage process may have been started"


def test_plan_of_a_cached_pipeline(home: Path) -> None:
    code, out, err = demo(home, "--json", command="plan")
    assert code == 0, err
    assert {s["state"] for s in json.loads(out)["stages"]} == {"HIT"}


def test_changing_the_grader_setting_rescores_without_sampling(home: Path) -> None:
    code, out, err = demo(home, "--json", "--set", "score.max_grader_error_share=0.02")
    assert code == 0, err
    ran = {s["name"] for s in json.loads(out)["stages"] if s["state"] == "ran"}
    assert ran == {"score.base", "score.sft", "score.grpo", "report"} or ran == {
        "score.base",
        "score.sft",
        "score.grpo",
    }


def test_forced_sft_gives_the_same_bytes_and_stops_there(home: Path) -> None:
    code, out, err = demo(home, "--json", "--force", "sft")
    assert code == 0, err
    ran = {s["name"] for s in json.loads(out)["stages"] if s["state"] == "ran"}
    assert ran == {"sft"}, "equal bytes must not rerun what depends on them"


def test_stopped_sft_resumes_to_the_same_weights(home: Path, first: dict[str, Any]) -> None:
    """SIGTERM in the middle of SFT: exit 130, state kept, RESUME planned; the next run ends in the bytes of the
    uninterrupted one."""
    sets = [word for override in REDUCED for word in ("--set", override)]
    expected = json.loads((Path(first["stages"][4]["folder"]) / "manifest.json").read_text())
    process = vcore(home, "run", "configs/demo.yaml", *sets, "--force", "sft", "--only", "sft")
    events = home / "work" / "sft" / expected["key"] / "events.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (events.is_file() and '"step": 6' in events.read_text()):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, out + err
    code, out, err = demo(home, "--json", "--force", "sft", "--only", "sft")
    assert code == 0, err
    assert "resuming from step" in err
    again = json.loads((Path(first["stages"][4]["folder"]) / "manifest.json").read_text())
    assert again["digest"] == expected["digest"]


def test_sft_in_two_processes_gives_the_weights_of_one(home: Path, first: dict[str, Any], tmp_path: Path) -> None:
    shutil.copytree(
        home / "store", tmp_path / "store"
    )  # the same key: the rounding of another order of sums is no reason to rerun
    launch = "execution.launch={sft: {kind: torchrun, processes: 2}}"
    code, out, err = demo(tmp_path, "--json", "--force", "sft", "--only", "sft", "--set", launch)
    assert code == 0, err
    both = (first["stages"][4], json.loads(out)["stages"][-1])
    assert [stage["name"] for stage in both] == ["sft", "sft"]
    import torch
    from safetensors.torch import load_file

    one, two = (load_file(Path(stage["folder"]) / "model" / "model.safetensors") for stage in both)
    for name, weights in one.items():
        torch.testing.assert_close(two[name], weights, rtol=0, atol=2e-4, msg=name)
    assert any(not torch.equal(two[name], weights) for name, weights in one.items()), "it did run in two processes"


def test_a_stage_that_fails_keeps_what_was_computed(home: Path) -> None:
    broken = "trainer={warmup_ratio: 2.0}"
    code, out, err = demo(home, "--set", f"sft.{broken}")
    assert code in (1, 2), err
    assert "error:" in err
    assert "Traceback" not in err
    code, out, err = demo(home, "--json", command="plan")
    assert {s["state"] for s in json.loads(out)["stages"]} == {"HIT"}


def test_a_sweep_shares_what_is_cached_and_reports(home: Path, first: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(
        f"config: {ROOT / 'configs' / 'demo.yaml'}\nname: graders\nbaseline: {{grader: usual}}\n"
        "matrix:\n  grader: {usual: {}, patient: {score.maths_timeout_s: 6.0}}\n"
    )
    sets = [word for override in REDUCED for word in ("--set", override)]
    process = vcore(home, "sweep", str(tmp_path / "sweep.yaml"), *sets, "--json")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    report = json.loads(out)
    usual, patient = report["tables"][0]["rows"]
    assert usual["values"] == patient["values"] == {"-": first["results"][0]["value"]}
    assert "graders.grader-usual  done" in err
    record = json.loads((home / "sweeps" / report["sweep"]["id"] / "sweep.json").read_text())
    assert [entry["ran"] for entry in record["cells"]] in ([0, 4], [1, 4], [1, 3])
    process = vcore(home, "report", report["sweep"]["id"], "--out", str(tmp_path / "copied"))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert (tmp_path / "copied" / "report.html").is_file()


def test_a_recorded_result_comes_back(home: Path, first: dict[str, Any], tmp_path: Path) -> None:
    """The second run finds the first one's artifacts, through a link to its store, so that it ends within seconds."""
    record = home / "runs" / first["run"] / "report.json"
    other = tmp_path / "other"
    (other / "reproduce" / "demo-seed-0").mkdir(parents=True)
    (other / "reproduce" / "demo-seed-0" / "store").symlink_to(home / "store")
    process = vcore(other, "reproduce", str(record), "--json")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    found = json.loads(out)
    assert found["verdict"] == "bit for bit"
    assert {result["came_back"] for result in found["results"]} == {"the same"}


def test_runs_show_and_store_commands(home: Path) -> None:
    for arguments in (
        ["runs", "--json"],
        ["show", "latest", "--json"],
        ["store", "ls", "--json"],
        ["store", "verify", "--json"],
    ):
        process = vcore(home, *arguments)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        json.loads(out)


def test_a_running_server_sees_the_flow_and_its_cached_stages(home: Path, prefect_server: str) -> None:
    code, out, err = demo(home, "--json", env={"PREFECT_API_URL": prefect_server})
    assert code == 0, err
    run = json.loads(out)["run"]
    flow = query(
        f"{prefect_server}/flow_runs/filter",
        {"sort": "START_TIME_DESC", "limit": 1, "flow_runs": {"name": {"like_": "vcore/demo/"}}},
    )[0]
    of_flow = {"flow_runs": {"id": {"any_": [flow["id"]]}}}
    assert re.fullmatch(r"vcore/demo/[0-9a-f]{8}", flow["name"])
    assert (flow["state"]["name"], flow["state"]["message"]) == (
        "Cached",
        "11 stages: 0 ran, 11 cached; nothing has changed",
    )
    assert set(flow["tags"]) == {"config:demo", "seed:0", "model:make"}
    assert flow["parameters"]["config"] == "configs/demo.yaml"
    logs = query(f"{prefect_server}/logs/filter", {"logs": {"flow_run_id": {"any_": [flow["id"]]}}})
    assert any(run in line["message"] for line in logs)
    artifacts = {a["key"]: a["type"] for a in query(f"{prefect_server}/artifacts/filter", of_flow)}
    shown = {"demo-report": "markdown", "demo-results": "table", "demo-page": "markdown", "demo-scores": "image"}
    assert artifacts.items() >= shown.items()
    tasks = query(f"{prefect_server}/task_runs/filter", of_flow | {"sort": "EXPECTED_START_TIME_ASC"})
    assert {t["name"]: t["state"]["name"] for t in tasks} == dict.fromkeys(ORDER, "Cached")
