"""Several engines behind one: the same samples in the same places, and no replica is left over or silently lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evaluation.engines import Engine, EngineOptions, EngineUnavailable, SamplingRequest, open_engine
from evaluation.harness import replicas
from tests.evaluation.engines.cases import drawn_requests
from tests.tiny import make_tiny_model, stage_environment

TWO = EngineOptions("cpu", "float32", threads=2, max_concurrent=4, data_parallel=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("replicas") / "model", hidden_size=128)


@pytest.fixture(scope="module")
def two(model: Path) -> Iterator[Engine]:
    engine = open_engine("transformers", model, TWO)
    yield engine
    engine.close()


@pytest.mark.slow
def test_two_replicas_sample_what_one_engine_does(model: Path, two: Engine) -> None:
    one = open_engine("transformers", model, EngineOptions("cpu", "float32"))
    requests = drawn_requests(one)
    told: dict[int, Any] = {}
    samples = two.generate(requests, told.__setitem__)
    assert samples == one.generate(requests)
    assert [told[index] for index in range(len(requests))] == samples
    assert two.generate(requests[:1]) == samples[:1]  # one replica has nothing to do
    assert two.generate([]) == []
    assert (two.name, two.version, two.max_model_len) == (one.name, one.version, one.max_model_len)
    with pytest.raises(ValueError, match="no room in a context of 256"):
        two.generate([SamplingRequest((5,) * 256, 1)])
    assert two.generate(requests[:3]) == samples[:3]  # and that has broken nothing


@pytest.mark.slow
def test_a_replica_that_dies_is_named_and_what_was_sampled_stands(model: Path) -> None:
    engine = open_engine("transformers", model, TWO)
    assert isinstance(engine, replicas.ReplicatedEngine)
    processes = [process for process, _ in engine._replicas]
    told = []

    def kill_one(index: int, sampled: Any) -> None:
        told.append(index)
        processes[1].kill()

    with pytest.raises(replicas.ReplicaLost, match="replica 1 of 2 ended with exit code -9"):
        engine.generate([SamplingRequest((5, 6, 7), 60, seed, 1.0) for seed in range(40)], kill_one)
    assert told
    engine.close()
    assert [process.poll() is not None for process in processes] == [True, True]


@pytest.mark.slow
def test_what_a_replica_cannot_load_is_raised_here(tmp_path: Path, model: Path) -> None:
    broken = tmp_path / "model"
    subprocess.run(["cp", "-r", str(model), str(broken)], check=True)
    (broken / "model.safetensors").write_bytes(b"")
    with pytest.raises(RuntimeError, match=r"safetensors|header|deserializing"):
        open_engine("transformers", broken, TWO)


@pytest.mark.slow
def test_replicas_end_with_a_killed_parent(model: Path) -> None:
    script = (
        "import sys, time\nfrom evaluation.engines import EngineOptions, open_engine\n"
        "options = EngineOptions('cpu', 'float32', threads=2, data_parallel=2)\n"
        "engine = open_engine('transformers', sys.argv[1], options)\n"
        "print(*[process.pid for process, _ in engine._replicas], flush=True)\ntime.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(model)], env=stage_environment(), stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    assert all(alive(pid) for pid in pids)
    parent.send_signal(signal.SIGKILL)
    parent.wait(timeout=20)
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_gpus_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7,8")
    options = EngineOptions("cuda", "bfloat16", tensor_parallel=2, data_parallel=2)
    assert replicas._environments(options, 1) == [{"CUDA_VISIBLE_DEVICES": "4,5"}, {"CUDA_VISIBLE_DEVICES": "6,7"}]
    with pytest.raises(EngineUnavailable, match="3 replicas of 2 GPUs need more than the 5 that are visible"):
        replicas._environments(EngineOptions("cuda", "bfloat16", tensor_parallel=2, data_parallel=3), 1)
    assert replicas._environments(TWO, 1) == [{"OMP_NUM_THREADS": "1"}] * 2
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,5,6,7,8"
