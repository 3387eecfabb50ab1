"""The stage programs on a device, each in a process of its own, without the orchestrator; for tools/gpu_check.py.

Data are generated and the model is made, so that nothing has to be fetched. SFT is also continued from its checkpoint,
which shows whether a stopped run ends in the same bytes on this device.
"""

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BRIEF = [
    "base.steps=40",
    "base.warmup_steps=2",
    "data.sft=[{task: word_problems, rows: 64}]",
    "data.rl=[{task: word_problems, rows: 32}]",
]
SFT: dict[str, Any] = {"max_steps": 4, "checkpoint_steps": 2, "epochs": None, "batch_size": 8}
VARIANTS: dict[str, dict[str, Any]] = {
    "sft uniform": {"method": {"name": "uniform"}},
    "sft vcore": {"method": {"name": "vcore"}},
    "sft bfloat16 lora": {"method": {"name": "vcore"}, "dtype": "bfloat16", "lora": {"rank": 8}},
}
REWARD = "def reward(problems, completions, finish_reasons):\n    return [len(text) % 7 / 7 for text in completions]\n"
GRPO: dict[str, Any] = {
    "steps": 2,
    "prompts_per_step": 2,
    "num_generations": 4,
    "max_completion_length": 32,
    "warmup_steps": 0,
    "stop_check_prompts": 0,
    "max_rollouts_without_signal": 10,
}


def run_stages(folder: Path, device: str, tiny: bool) -> dict[str, Any]:
    """Run data, base, SFT (uniform, VCORE, bfloat16 with LoRA, continued), GRPO and, with vLLM, sampling.

    Args:
        tiny: leave out what another variant shows too.
    """
    from pipeline.config.schema import load_config
    from pipeline.plan.graph import build_graph

    graph = {stage.name: stage for stage in build_graph(load_config(ROOT / "configs" / "demo.yaml", BRIEF))}
    settings = {name: stage.settings.model_dump(mode="json") for name, stage in graph.items()}
    runs = _Runs(folder, device)
    data = runs.run("data", settings["data"], {})
    base = runs.run("base", {**settings["base"], "min_accuracy": 0.01}, {"data": data})
    for name, changes in VARIANTS.items():
        if not tiny or name == "sft vcore":
            runs.run(name, {**settings["sft"], **SFT, **changes}, {"data": data, "model": base})
    continued = folder / "sft continued" / "state" / "checkpoints" / "checkpoint-2"
    if not tiny and (half := folder / "sft vcore" / "state" / "checkpoints" / "checkpoint-2").is_dir():
        shutil.copytree(half, continued)
        runs.run("sft continued", {**settings["sft"], **SFT, **VARIANTS["sft vcore"]}, {"data": data, "model": base})
        runs.found["sft continued"]["same_bytes"] = _digest(folder / "sft continued") == _digest(folder / "sft vcore")
    # A model that was hardly trained solves nothing: lengths differ, so that there is something to learn from.
    reward = folder / "reward.py"
    reward.write_text(REWARD, encoding="utf-8")
    rewards = {"correct": 0.0, "format": 0.0, "custom": [{"file": str(reward)}]}
    rollouts: dict[str, dict[str, Any]] = {"grpo transformers": {"rollout": "transformers"}}
    if device == "cuda" and importlib.util.find_spec("vllm") is not None:
        rollouts |= {"grpo vllm": {"rollout": "vllm", "gpu_memory_utilization": 0.3}}
        rollouts |= {"grpo vllm sleep": {**rollouts["grpo vllm"], "sleep": True}}
    for name, changes in rollouts.items():
        runs.run(name, {**settings["grpo"], **GRPO, "rewards": rewards, **changes}, {"data": data, "model": base})
    if len(rollouts) > 1:
        runs.run("generate vllm", settings["generate.base"], {"data": data, "model": base})
    return {**runs.found, "ok": all(found["rc"] == 0 for found in runs.found.values())}


class _Runs:
    """Stage programs below one folder; `found` is what became of each."""

    def __init__(self, folder: Path, device: str) -> None:
        self.folder, self.device = folder, device
        self.found: dict[str, dict[str, Any]] = {}
        shutil.rmtree(folder, ignore_errors=True)

    def run(self, name: str, settings: dict[str, Any], inputs: dict[str, Path]) -> Path:
        """Run a stage, named by its program and what is particular of it; returns the folder of what it made."""
        from pipeline.launch.environment import stage_environment

        program, work = name.partition(" ")[0], self.folder / name
        (work / "output").mkdir(parents=True, exist_ok=True)
        own = [part["file"] for part in settings.get("rewards", {}).get("custom", [])]
        digests = {file: hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in own}
        spec = {
            "stage": program,
            "settings": settings,
            "inputs": {label: str(path) for label, path in inputs.items()},
            "output": str(work / "output"),
            "state": str(work / "state"),
            "seed": 0,
            "machine": {"device": self.device, "threads": max(1, (os.cpu_count() or 2) // 2), "data_dir": None},
            "details": {"code_digests": digests},
            "parent": None,
        }
        (work / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
        started = time.monotonic()
        command = [sys.executable, "-P", "-m", f"stages.{program}", str(work / "spec.json")]
        environment = stage_environment(self.device, None, hub=False)
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=self.folder)
        self.found[name] = {"rc": done.returncode, "s": round(time.monotonic() - started, 1)}
        result = work / "output" / "record" / "result.json"
        if done.returncode:
            self.found[name]["error"] = done.stderr.strip()[-300:]
        elif result.is_file():
            proof = json.loads(result.read_text(encoding="utf-8"))["proof"]
            wanted = ("loss_last", "merge_difference", "logprob_difference_max", "logprob_difference_mean")
            self.found[name] |= {key: proof[key] for key in wanted if key in proof}
        return work / "output"


def _digest(folder: Path) -> str:
    file = folder / "output" / "model" / "model.safetensors"
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else f"no {file}"
