"""`vcore eval http://...`: the config it makes, what it refuses, and vLLM's own server, killed and restarted midway."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from typer.testing import CliRunner

from evaluation.engines.vllm_internals import ENVIRONMENT
from evaluation.records import Generation, read_records
from pipeline.cli.app import app
from pipeline.config.schema import load_config
from pipeline.core.errors import ConfigError
from pipeline.launch.environment import free_port
from pipeline.plan.graph import build_graph
from stages.generate.stage import SERVED
from tests.tiny import make_tiny_model, stage_environment

KEY = "very-secret-key"
CONFIG: dict[str, Any] = {
    "name": "served",
    "seed": 0,
    "model": "http://localhost:8000",
    "benchmarks": [{"name": "word_problems", "problems": 4}],
    "generate": {"engine": "openai", "server": {"model": "tiny"}},
}


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["eval", *map(str, arguments), "--benchmarks", "word_problems", "--problems", "4"])
    if result.exception is not None:
        raise result.exception
    return result.output


def write(folder: Path, values: dict[str, Any]) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_a_served_model_has_no_base_stage_and_needs_no_gpu(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, CONFIG))
    stages = {stage.name: stage for stage in build_graph(config)}
    assert list(stages) == ["data", "generate.served", "score.served", "report"]
    generate = stages["generate.served"]
    assert generate.kind is SERVED
    assert list(generate.inputs) == ["data"]
    assert generate.settings.identity_settings()["server"]["url"] == "http://localhost:8000/v1"
    assert config.tags[-1] == "model:tiny"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"generate": {}}, "set engine: openai and server"),
        ({"model": "make"}, "give its address"),
        ({"model": "http://me:pw@host/v1"}, "no user, password or query"),
        ({"grpo": {"steps": 1}, "data": {"rl": [{"task": "word_problems", "rows": 4}]}}, "cannot be trained"),
        ({"template_date": "2025-01-31"}, "with its own clock"),
        ({"model_revision": "v1"}, "is for models of the hub"),
        ({"generate": CONFIG["generate"] | {"server": {"model": "tiny", "url": "http://x"}}}, "is filled from"),
    ],
)
def test_what_a_served_model_cannot_be_combined_with(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, CONFIG | changed))


def test_arguments_that_do_not_fit_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = ("--home", tmp_path)
    with pytest.raises(ConfigError, match="which of the server's models") as unnamed:
        run("http://localhost:1/v1", *home)
    assert unnamed.value.where == "--model"
    with pytest.raises(ConfigError, match="is no address"):
        run("some/model", "--model", "tiny", *home)
    with pytest.raises(ConfigError, match="user, password or query"):
        run(f"http://me:{KEY}@localhost:1/v1", "--model", "tiny", *home)
    for option in (("--engine", "vllm"), ("--engine", "transformers"), ("--thinking-budget", 10)):
        with pytest.raises(ConfigError, match="a server") as ours:
            run("http://localhost:1/v1", "--model", "tiny", *option, *home)
        assert ours.value.where == option[0]
    assert not (tmp_path / "eval").exists()
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(ConfigError, match="the environment has no MY_KEY"):
        run("http://localhost:1/v1", "--model", "tiny", "--api-key-env", "MY_KEY", *home)


def test_show_prompt_prints_the_messages_that_are_sent(tmp_path: Path) -> None:
    arguments = ("http://localhost:1/v1", "--model", "tiny", "--show-prompt", 1, "--home", tmp_path, "--json")
    (shown,) = json.loads(run(*arguments))
    (message,) = json.loads(shown["text"])
    assert message["role"] == "user"
    assert message["content"].endswith("Put the answer in \\boxed{}.")
    assert (shown["token_ids"], shown["tokens"]) == ([], [])
    arguments = ("http://localhost:1/v1", "--model", "tiny", "--show-prompt", -1, "--home", tmp_path)
    with pytest.raises(SystemExit, match="2"):
        run(*arguments)


def vllm_server(model: Path, port: int, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(port), "--api-key", KEY]
    command += ["--enable-tokenizer-info-endpoint", "--enforce-eager", "--dtype", "float32", "--max-num-seqs", "8"]
    command += ["--no-enable-chunked-prefill", "--no-enable-prefix-caching", "--max-num-batched-tokens", "4096"]
    environment = {**stage_environment(), **ENVIRONMENT, "VLLM_CPU_KVCACHE_SPACE": "1"}
    del environment["VLLM_ENABLE_V1_MULTIPROCESSING"]  # the server's engine is a process of its own
    with open(log, "ab") as file:
        return subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)


def end(server: subprocess.Popen[bytes]) -> None:
    """Kill a server with its engine's process."""
    os.killpg(server.pid, 9)
    server.wait(timeout=60)


def wait_for(condition: Any, seconds: float, *processes: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes)
        time.sleep(0.2)


@pytest.mark.slow
def test_vllms_own_server_killed_and_restarted_gives_every_sample_once(tmp_path: Path) -> None:
    model, port, home = make_tiny_model(tmp_path / "model", hidden_size=128), free_port(), tmp_path / "home"
    log, url = tmp_path / "server.log", f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/health", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    command = [sys.executable, "-m", "pipeline", "eval", url, "--model", "tiny", "--api-key-env", "MY_KEY"]
    command += ["--benchmarks", "word_problems", "--problems", "30", "--samples", "4", "--temperature", "1"]
    command += ["--max-new-tokens", "100", "--home", str(home), "--set", "generate.server.logprobs=true"]
    command += ["--set", "generate.max_concurrent=4"]
    environment = stage_environment() | {"MY_KEY": KEY}
    server = vllm_server(model, port, log)
    try:
        wait_for(answers, 240, server)
        with open(tmp_path / "run.log", "wb") as said:
            run = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
        wait_for(lambda: sum(f.read_bytes().count(b"\n") for f in home.rglob("samples.jsonl")) >= 10, 180, run, server)
        end(server)
        server = vllm_server(model, port, log)
        wait_for(lambda: run.poll() is not None, 400, server)
    finally:
        end(server)
    assert run.returncode == 0, (tmp_path / "run.log").read_text()
    (artifact,) = (path.parent for path in home.glob("store/generate/*/generations.jsonl"))
    rows = read_records(artifact / "generations.jsonl", Generation)
    assert len({(row.problem_id, row.sample) for row in rows}) == len(rows) == 120
    assert {row.finish_reason for row in rows} <= {"stop", "length"}
    tokens = [json.loads(line) for line in (artifact / "tokens.jsonl").read_text().splitlines()]
    counts = {(row.problem_id, row.sample): row.completion_tokens for row in rows}
    for row in tokens:
        assert len(row["token_ids"]) == len(row["logprobs"]) == counts[row["problem_id"], row["sample"]]
    assert len(tokens) == 120
    said = json.loads((artifact / "server.json").read_text())
    assert (said["kind"], said["context"]) == ("vLLM", 256)
    assert said["template_sha256"] != "unknown"
    assert sum(counts.values()) == said["completion_tokens"]
    protocol = json.loads((artifact / "summary.json").read_text())["protocol"]["word_problems"]
    assert protocol["chat_template_sha256"] == said["template_sha256"]
    files = [path for path in home.rglob("*") if path.is_file()] + [tmp_path / "run.log"]
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
