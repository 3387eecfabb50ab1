"""Everything that can be known to be wrong before the first stage starts. Runs in `vcore plan` and `vcore run`; loads no model.

Settings check themselves (pipeline/config/schema.py, stages/*/settings.py); here are the checks that need the machine or two sections at once.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

from evaluation.engines.vllm_cpu import HEAD_SIZES
from pipeline.checks.custom_code import check_own_code
from pipeline.checks.sizes import check_batches, check_lengths, check_memory
from pipeline.config.execution import LaunchSettings
from pipeline.config.schema import MAKE_MODEL, PipelineConfig, nearest
from pipeline.core.errors import ConfigError, StoreError
from pipeline.launch.machine import stage_device, visible_gpus
from pipeline.plan.graph import build_graph
from pipeline.plan.planning import Planned

TRAINS_IN_PROCESSES = ("sft", "grpo")
"""Stage programs that can share their work out over several processes."""


def preflight(config: PipelineConfig, plan: list[Planned]) -> None:
    """Raise `ConfigError` for what a stage that has to run would trip over later."""
    programs = {planned.stage.program for planned in plan if planned.state != "HIT"}
    if not programs:
        return
    places = _places(config, plan)
    here = {program for program in programs if program not in _only_in_jobs(config)}
    _execution(config, "cuda" if any(places[program] == "cuda" for program in here) else "cpu")
    _libraries(config, programs)
    _needs_gpu(config, places)
    check_own_code(config, programs)
    check_batches(config, programs)
    check_lengths(config, programs, model_length(config))
    for where in ("cpu", "cuda"):
        check_memory(config, {program for program in here if places[program] == where}, where)
    _heads(config, places)
    free = shutil.disk_usage(config.home_folder.resolve()).free / 2**30
    if free < config.execution.min_free_gib:
        raise StoreError(
            f"{free:.1f} GiB free below {config.home_folder}, {config.execution.min_free_gib:g} GiB wanted",
            where="execution.min_free_gib",
            fix="Free some space, choose another `home:`, or lower execution.min_free_gib.",
        )


def _places(config: PipelineConfig, plan: list[Planned]) -> dict[str, str]:
    """Program -> `cpu` or `cuda`, of what has to run; where stages of one program differ, the CPU, which takes less."""
    launches = config.execution.launch
    places: dict[str, str] = {}
    for stage in (planned.stage for planned in plan if planned.state != "HIT"):
        place = stage_device(config.execution, stage.program, launches.get(stage.name, LaunchSettings()))
        places[stage.program] = "cpu" if place == "cpu" else places.get(stage.program, place)
    return places


def _only_in_jobs(config: PipelineConfig) -> set[str]:
    """Programs all stages of which are Slurm jobs: what their nodes have is not known here."""
    here = set()
    for stage in build_graph(config):
        launch = config.execution.launch.get(stage.name)
        if launch is None or launch.kind != "slurm":
            here.add(stage.program)
    return {stage.program for stage in build_graph(config)} - here


def _execution(config: PipelineConfig, where: str) -> None:
    names = {stage.name: stage.program for stage in build_graph(config)}
    for section in ("launch", "time_limit_s"):
        for name in getattr(config.execution, section):
            if name not in names:
                raise ConfigError(
                    f"this pipeline has no stage {name!r}{nearest(name, names)}", where=f"execution.{section}.{name}"
                )
    for name, launch in config.execution.launch.items():
        if (launch.kind in ("torchrun", "accelerate") or launch.processes > 1) and names[
            name
        ] not in TRAINS_IN_PROCESSES:
            raise ConfigError(
                f"{name} is one process; {' and '.join(TRAINS_IN_PROCESSES)} can be several",
                where=f"execution.launch.{name}",
                fix="Use kind: local or slurm.",
            )
        if launch.config is not None and not Path(launch.config).expanduser().is_file():
            raise ConfigError(f"file {launch.config} does not exist", where=f"execution.launch.{name}.config")
        if launch.kind == "slurm" and shutil.which("sbatch") is None:
            raise ConfigError(
                "there is no sbatch on this machine",
                where=f"execution.launch.{name}",
                fix="Start the run on a node of the cluster.",
            )
    wanted, there = config.execution.gpus, len(visible_gpus())
    if where == "cuda" and wanted is not None and wanted > there:
        raise ConfigError(
            f"{wanted} GPUs are asked for and {there} can be seen", where="execution.gpus", fix=f"At most {there}."
        )


def _libraries(config: PipelineConfig, programs: set[str]) -> None:
    wanted: dict[str, str] = {}
    if "generate" in programs and config.generate.engine == "vllm":
        wanted["generate.engine"] = "vllm"
    if "grpo" in programs and config.grpo is not None and config.grpo.rollout != "transformers":
        wanted["grpo.rollout"] = "vllm"
    for where, module in wanted.items():
        if importlib.util.find_spec(module) is None:
            raise ConfigError(
                "vLLM is not installed",
                where=where,
                fix=f"Install the pinned set (make setup), or choose `--set {where}=transformers` (slower at scale).",
            )
    for name, section in (("sft", config.sft), ("grpo", config.grpo)):
        for tracker in section.trackers if section is not None and name in programs else ():
            if importlib.util.find_spec(tracker) is None:
                raise ConfigError(
                    f"{tracker} is not installed",
                    where=f"{name}.trackers",
                    fix=f"pip install {tracker}, or leave it out.",
                )
    if programs & {"base", "sft", "grpo", "generate"} and importlib.util.find_spec("torch") is None:
        raise ConfigError("torch is not installed", fix="Install the pinned set: make setup, then vcore doctor.")


def _needs_gpu(config: PipelineConfig, places: dict[str, str]) -> None:
    if (
        config.grpo is not None
        and places.get("grpo") == "cpu"
        and (config.grpo.sleep or config.grpo.rollout == "vllm_server")
    ):
        name = "sleep" if config.grpo.sleep else "rollout"
        raise ConfigError("needs a GPU, and this run is on the CPU", where=f"grpo.{name}", fix="Leave it out here.")
    _engines_fit(config, {program for program, where in places.items() if where == "cuda"} - _only_in_jobs(config))
    for name, section in (("sft", config.sft), ("grpo", config.grpo), ("generate", config.generate)):
        if section is not None and section.dtype != "float32" and places.get(name) == "cpu":
            raise ConfigError(
                f"{section.dtype} is for GPUs, and this run is on the CPU",
                where=f"{name}.dtype",
                fix=f"Use `--set {name}.dtype=float32`.",
            )


def _engines_fit(config: PipelineConfig, programs: set[str]) -> None:
    """The GPUs that vLLM is told to use are there, for programs that use some of this machine's."""
    there = config.execution.gpus or len(visible_gpus())
    engines = {"generate": (config.generate.tensor_parallel, config.generate.data_parallel)}
    if config.grpo is not None and config.grpo.rollout == "vllm":
        engines["grpo"] = (config.grpo.tensor_parallel, 1)
    for name, (tensor, data) in engines.items():
        if name in programs and tensor * data > there:
            raise ConfigError(
                f"{data} engines of {tensor} GPUs need {tensor * data}, and a stage has {there}",
                where=f"{name}.data_parallel" if data > 1 else f"{name}.tensor_parallel",
                fix=f"At most {there} in all.",
            )


def _model_settings(config: PipelineConfig) -> dict[str, Any]:
    """What can be known of the model without the hub, by the names of a checkpoint's config.json; empty for a model of the hub."""
    if config.model == MAKE_MODEL:
        return {"max_position_embeddings": config.base.max_position_embeddings, "head_dim": config.base.head_dim}
    folder = Path(config.model).expanduser()
    file = folder / "config.json"
    if not file.is_file():
        if folder.is_dir():
            raise ConfigError(
                f"{config.model} holds no config.json: not a checkpoint folder",
                where="model",
                fix="Name a Hugging Face checkpoint.",
            )
        return {}
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file} is not valid JSON", where="model", fix="Restore the checkpoint.") from error
    return settings if isinstance(settings, dict) else {}


def model_length(config: PipelineConfig) -> int | None:
    """Positions of the model, where they can be known without the hub."""
    length = _model_settings(config).get("max_position_embeddings")
    return length if isinstance(length, int) else None


def _heads(config: PipelineConfig, places: dict[str, str]) -> None:
    """On a CPU vLLM has attention for some head sizes only."""
    samplers = {
        "generate": config.generate.engine == "vllm",
        "grpo": config.grpo is not None and config.grpo.rollout == "vllm",
    }
    if not any(uses and places.get(name) == "cpu" for name, uses in samplers.items()):
        return
    found = _model_settings(config)
    size = found.get("head_dim")
    if size is None and {"hidden_size", "num_attention_heads"} <= found.keys():
        size = found["hidden_size"] // found["num_attention_heads"]
    if isinstance(size, int) and size not in HEAD_SIZES:
        raise ConfigError(
            f"vLLM on a CPU has no attention for heads of {size}; it has {', '.join(map(str, HEAD_SIZES))}",
            where="base.head_dim" if config.model == MAKE_MODEL else "model",
            fix="Use another size, or the engine and rollout `transformers`.",
        )
