"""vLLM with a compiled model on a CPU, in a process of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.engines import EngineOptions, open_engine
from tests.evaluation.engines.cases import greedy_requests
from tests.tiny import make_tiny_model, stage_environment

PROGRAM = """
import json, sys
from evaluation.engines import EngineOptions, open_engine
from tests.evaluation.engines.cases import drawn_requests, greedy_requests

options = EngineOptions("cpu", "float32", threads=1, max_concurrent=64, cpu_compile=True)
engine = open_engine("vllm", sys.argv[1], options)
config = engine._llm.llm_engine.vllm_config.compilation_config
drawn = [[one.text for one in engine.generate(drawn_requests(engine))] for _ in range(2)]
greedy = [one.text for one in engine.generate(greedy_requests(engine))]
print("FOUND " + json.dumps({"mode": int(config.mode), "greedy": greedy, "drawn": drawn}))
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++: a compiled engine was not tried")
def test_a_compiled_model_samples_what_it_samples_otherwise(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model", hidden_size=128)
    environment = {**stage_environment(), "VLLM_CACHE_ROOT": str(tmp_path), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", PROGRAM, str(model)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("FOUND "))
    found = json.loads(line.removeprefix("FOUND "))
    assert found["mode"] > 0, "vLLM did not compile"
    assert found["drawn"][0] == found["drawn"][1]
    plain = open_engine("transformers", model, EngineOptions("cpu", "float32", threads=1, max_concurrent=64))
    assert found["greedy"] == [one.text for one in plain.generate(greedy_requests(plain))]
