"""Several nodes without Slurm: the same `vcore run` on each of them, which here are processes of one machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from pipeline.core.errors import ConfigError
from pipeline.launch.by_hand import rendezvous
from pipeline.launch.commands import Place
from pipeline.launch.environment import free_port
from tests.pipeline.environments import make_environment
from tests.pipeline.launch.test_process import ROOT
from tests.tiny import make_tiny_model

CONFIG = {
    "name": "nodes",
    "seed": 0,
    "benchmarks": [{"name": "word_problems", "problems": 4, "max_new_tokens": 16}],
    "data": {"sft": [{"task": "word_problems", "rows": 32}]},
    "sft": {"learning_rate": 1e-2, "batch_size": 8, "max_steps": 12, "max_length": 1024, "checkpoint_steps": 2},
    "grpo": None,
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    model = make_tiny_model(tmp_path / "model", positions=1024)
    file = tmp_path / "nodes.yaml"
    file.write_text(yaml.safe_dump({**CONFIG, "model": str(model)}), encoding="utf-8")
    return file


def command(config: Path, home: Path, launch: str, verb: str = "run") -> list[str]:
    sets = [f"home={home}", "execution.device=cpu", "execution.threads=1", f"execution.launch={{sft: {launch}}}"]
    return [sys.executable, "-m", "pipeline", verb, str(config), "--until", "sft", *(f"--set={one}" for one in sets)]


def start(words: list[str], log: Path, address: str = "", rank: int = 0) -> subprocess.Popen[bytes]:
    meeting = {"VCORE_RENDEZVOUS": address, "VCORE_NODE_RANK": str(rank)} if address else {}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **meeting}
    with open(log, "wb") as output:
        return subprocess.Popen(words, env=environment, stdout=output, stderr=output)


def weights(home: Path) -> bytes:
    (file,) = home.glob("store/sft/*/model/model.safetensors")
    return file.read_bytes()


def steps(home: Path) -> int:
    lines = [line for file in home.glob("work/sft/*/events.jsonl") for line in file.read_text().splitlines()]
    return max((json.loads(line).get("step", 0) for line in lines), default=0)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_same_command_on_each_node_makes_what_one_node_makes(tmp_path: Path, config: Path) -> None:
    """Stopped once on the way, from a node that is not the first. Its stage runs under an interpreter of its own."""
    python = make_environment(tmp_path / "venv")
    one, two, address = tmp_path / "one", tmp_path / "two", f"localhost:{free_port()}"
    log = [tmp_path / "0.log", tmp_path / "1.log"]
    nodes = [*command(config, two, "{kind: torchrun, nodes: 2}"), f"--set=execution.python.sft={python}"]
    other = start(nodes, log[1], address, rank=1)
    first = start(nodes, log[0], address)
    deadline = time.monotonic() + 300
    while steps(two) < 3 and time.monotonic() < deadline and first.poll() is None:
        time.sleep(0.1)
    other.send_signal(signal.SIGTERM)
    assert first.wait(120) == 130, log[0].read_text()
    assert other.wait(60) == 130, log[1].read_text()
    assert "stage sft was stopped" in log[0].read_text()

    first, other = start(nodes, log[0], address), start(nodes, log[1], address, rank=1)
    assert first.wait(300) == 0, log[0].read_text()
    assert other.wait(60) == 0, log[1].read_text()
    assert "waits for node 1: start the same command there with VCORE_NODE_RANK" in log[0].read_text()
    assert "resuming from step" in log[0].read_text()
    assert "the run of node 0 is done" in log[1].read_text()

    assert start(command(config, one, "{kind: torchrun, processes: 2}"), log[0]).wait(300) == 0, log[0].read_text()
    assert weights(one) == weights(two)
    assert [path.name for path in one.glob("store/sft/*")] == [path.name for path in two.glob("store/sft/*")]
    (manifest,) = two.glob("store/sft/*/manifest.json")
    assert json.loads(manifest.read_text())["python"] == f"{python}/bin/python"


@pytest.mark.parametrize(
    ("address", "rank", "place"),
    [
        ("", "", None),
        ("node0:29500", "", Place(0, "node0", 29500)),
        ("10.0.0.1:29500", "3", Place(3, "10.0.0.1", 29500)),
        ("[fe80::1]:29500", "1", Place(1, "fe80::1", 29500)),
    ],
)
def test_where_nodes_meet(monkeypatch: pytest.MonkeyPatch, address: str, rank: str, place: Place | None) -> None:
    monkeypatch.setenv("VCORE_RENDEZVOUS", address)
    monkeypatch.setenv("VCORE_NODE_RANK", rank)
    assert rendezvous() == place


@pytest.mark.parametrize(
    ("address", "rank", "message"),
    [
        ("", "1", "VCORE_NODE_RANK is 1, and VCORE_RENDEZVOUS is not set"),
        ("node0", "0", "VCORE_RENDEZVOUS is 'node0'\nWrite HOST:PORT"),
        ("http://node0:1", "0", "Write HOST:PORT"),
        ("node0:29500", "first", "VCORE_NODE_RANK is 'first'"),
        ("node0:0", "0", "A port is a number from 1 to 65535"),
        ("node0:70000", "0", "A port is a number from 1 to 65535"),
    ],
)
def test_a_rendezvous_that_is_none_is_refused(
    monkeypatch: pytest.MonkeyPatch, address: str, rank: str, message: str
) -> None:
    monkeypatch.setenv("VCORE_RENDEZVOUS", address)
    monkeypatch.setenv("VCORE_NODE_RANK", rank)
    with pytest.raises(ConfigError, match=message):
        rendezvous()
