"""What can be known to be wrong before the first stage starts. Runs in `vcore plan` and `vcore run`; loads no model.

Settings check themselves (pipeline/config/schema.py, stages/*/settings.py). Here are the checks that need the machine
or two sections at once; what a stage needs stands in its declaration (stages/*/stage.py).
"""

import importlib.util
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.engines.vllm_internals import HEAD_SIZES
from pipeline.checks.columns import check_columns
from pipeline.checks.custom_code import check_custom_code
from pipeline.checks.disk import check_disk
from pipeline.checks.export import check_exports
from pipeline.checks.sizes import check_batches, check_lengths, check_memory
from pipeline.checks.trainer_options import check_trainer_options
from pipeline.config.execution import LaunchSettings
from pipeline.config.schema import PipelineConfig
from pipeline.core.errors import ConfigError
from pipeline.core.shipped import how_to_install, shipped
from pipeline.launch.by_hand import RANK, RENDEZVOUS, check_address, rendezvous
from pipeline.launch.machine import leased_gpus, stage_device, visible_gpus
from pipeline.plan.graph import Stage, build_graph, check_stage
from pipeline.plan.interpreters import Interpreters
from pipeline.plan.planning import Planned
from stages.base.settings import MAKE, gguf_file

DDP, FSDP2 = "configs/accelerate/ddp.yaml", "configs/accelerate/fsdp2.yaml"
SPLIT = ("FSDP2", "FSDP", "DEEPSPEED", "MEGATRON_LM")
"""What splits a model between processes, as accelerate's `distributed_type` names it."""


def preflight(config: PipelineConfig, plan: Sequence[Planned]) -> None:
    """Raise `ConfigError` for what a stage that has to run would trip over later, or the run at its end."""
    check_exports(config.export)
    stages = [planned.stage for planned in plan if planned.state != "HIT"]
    if not stages:
        return
    device = {stage.name: stage_device(config.execution, stage) for stage in stages}
    here = [stage for stage in stages if config.execution.launch_of(stage.name).kind != "slurm"]
    _check_launches(config)
    if any(config.execution.launch_of(stage.name).nodes > 1 for stage in here):
        check_address()
    _check_gpus(config, here, device)
    _check_engines(config, stages)
    interpreters = Interpreters(config)
    interpreters.check_imports(stages)
    _check_libraries([stage for stage in stages if interpreters.of(stage.name) is None])
    _check_environment(stages)
    _check_what_needs_gpus([stage for stage in stages if device[stage.name] == "cpu"])
    check_custom_code(stages)
    check_columns(stages)
    check_batches(config, stages)
    check_lengths(stages, model_length(config))
    check_memory(config, [stage for stage in here if device[stage.name] == "cpu"])
    _check_heads(config, [stage for stage in stages if device[stage.name] == "cpu"])
    _check_compiler([stage for stage in here if device[stage.name] == "cpu"])
    check_disk(config, plan)
    check_trainer_options(stages, config.home_folder / "cache", interpreters)


def _check_launches(config: PipelineConfig) -> None:
    """What `execution:` says of single stages can be done, for each stage it names."""
    graph = build_graph(config)
    kinds = {stage.name: stage.kind for stage in graph} | {stage.program: stage.kind for stage in graph}
    for section in ("launch", "time_limit_s"):
        for name in getattr(config.execution, section):
            check_stage(graph, name, f"execution.{section}.{name}")
    several = dict.fromkeys(kind.name for kind in kinds.values() if kind.several_processes)
    for name, launch in config.execution.launch.items():
        where = f"execution.launch.{name}"
        shared = launch.kind in ("torchrun", "accelerate") or launch.processes > 1 or launch.config is not None
        if shared and not kinds[name].several_processes:
            can = f"; {' and '.join(several)} can be several" if several else ""
            fix = "Use kind: local or slurm, with one process and no config."
            raise ConfigError(f"{name} is one process{can}", where=where, fix=fix)
        if launch.nodes > 1:
            _check_nodes(name, launch, kinds[name].several_processes, where)
        if launch.config is not None and not Path(launch.config).expanduser().is_file():
            raise ConfigError(f"file {launch.config} does not exist", where=f"{where}.config")
        if launch.config is not None:
            _check_split([stage for stage in graph if name in (stage.name, stage.program)], name, launch.config)
        if launch.kind == "slurm" and shutil.which("sbatch") is None:
            fix = "Start the run on a node of the cluster."
            raise ConfigError("there is no sbatch on this machine", where=where, fix=fix)


def _check_nodes(name: str, launch: LaunchSettings, several: bool, where: str) -> None:
    """A stage that several nodes share can be shared, and the nodes find each other."""
    if not several:
        message = f"{name} runs on one node; of the stages, trainings alone can have several"
        fix = "Leave it out. Evaluations are shared out over machines as cells of a sweep (docs/orchestration.md)."
        raise ConfigError(message, where=f"{where}.nodes", fix=fix)
    if launch.kind != "slurm" and rendezvous() is None:
        message = f"{launch.nodes} nodes need to know where they meet, and {RENDEZVOUS} is not set"
        fix = f"On each of them: export {RENDEZVOUS}=HOST:PORT {RANK}=N (docs/orchestration.md), or use kind: slurm."
        raise ConfigError(message, where=f"{where}.nodes", fix=fix)


def _check_split(stages: list[Stage], name: str, file: str) -> None:
    """The stages that a launch is for can have their model shared out as a file of accelerate's says.

    A reference model is loaded when torch.distributed is up: all processes but the first may then leave it at zero, and
    TRL hands nothing on from the first.
    """
    how, where = distributed_type(file), f"execution.launch.{name}.config"
    for stage in stages if how in SPLIT else ():
        if how not in stage.kind.splits_model:
            can = f" {' and '.join(stage.kind.splits_model)} can be." if stage.kind.splits_model else ""
            message = f"{name} cannot have its model split by {how}, as {file} asks"
            raise ConfigError(message, where=where, fix=f"Use torchrun or {shipped(DDP)}.{can}")
        for setting, instead in stage.kind.whole_weights(stage.settings):
            message = f"it needs whole weights in each process, and {file} splits them ({how})"
            raise ConfigError(message, where=setting, fix=f"Use `--set {setting}={instead}`, or {shipped(DDP)}.")
        if zeros_at_load(file) and stage.kind.loads_reference(stage.settings):
            raise ConfigError(
                f"{name} loads a reference model (beta above 0), of which fsdp_cpu_ram_efficient_loading leaves "
                "zeros in all processes but the first",
                where=where,
                fix=f"Write fsdp_cpu_ram_efficient_loading: false into {file}, as {shipped(FSDP2)} does.",
            )


def zeros_at_load(file: str) -> bool:
    """Whether a file of accelerate's has transformers load weights in the first process alone, as it does by default
    under FSDP."""
    config = _accelerate_config(file)
    efficient = (config.get("fsdp_config") or {}).get("fsdp_cpu_ram_efficient_loading", True)
    return config["distributed_type"] == "FSDP" and str(efficient).lower() == "true"


def distributed_type(file: str) -> str:
    """The `distributed_type` of one of accelerate's files; FSDP's second version is FSDP2."""
    config = _accelerate_config(file)
    second = str((config.get("fsdp_config") or {}).get("fsdp_version", 1)) == "2"
    return "FSDP2" if config["distributed_type"] == "FSDP" and second else str(config["distributed_type"])


def _accelerate_config(file: str) -> dict[str, Any]:
    """One of accelerate's files; it has at least a `distributed_type`."""
    import yaml

    try:
        config: dict[str, Any] = yaml.safe_load(Path(file).expanduser().read_text(encoding="utf-8"))
        if not isinstance(config["distributed_type"], str):
            raise TypeError
        return config
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        fix = f"Write it with `accelerate config`, or see {shipped('configs/accelerate')}."
        message = f"{file} is no configuration of accelerate's with a distributed_type ({type(error).__name__})"
        raise ConfigError(message, where="execution.launch", fix=fix) from error


def _check_gpus(config: PipelineConfig, here: list[Stage], device: dict[str, str]) -> None:
    """The GPUs that stages on this machine ask for are there."""
    on_gpu = [stage for stage in here if device[stage.name] == "cuda"]
    asked, visible = config.execution.gpus, len(visible_gpus())
    if on_gpu and asked is not None and asked > visible:
        message = f"{asked} GPUs are asked for and {visible} can be seen"
        raise ConfigError(message, where="execution.gpus", fix=f"At most {visible}.")
    there = asked or visible
    for stage in on_gpu:
        needed, vllm = leased_gpus(config.execution, stage), stage.kind.vllm(stage.settings)
        if needed <= there:
            continue
        if stage.kind.several_processes or vllm is None:
            what, where = f"{needed} processes need {needed} GPUs", f"execution.launch.{stage.name}.processes"
        else:
            what = f"{vllm.data_parallel} engines of {vllm.tensor_parallel} GPUs need {needed}"
            where = f"{stage.program}.{'data_parallel' if vllm.data_parallel > 1 else 'tensor_parallel'}"
        raise ConfigError(f"{what}, and a stage has {there}", where=where, fix=f"At most {there} in all.")


def _check_engines(config: PipelineConfig, stages: list[Stage]) -> None:
    """An engine that samples inside a training shares the training's processes, and so takes a number of them."""
    for stage in stages:
        vllm, processes = stage.kind.vllm(stage.settings), config.execution.launch_of(stage.name).processes
        if vllm is None or not vllm.engine or not stage.kind.several_processes or processes % vllm.tensor_parallel == 0:
            continue
        raise ConfigError(
            f"an engine of {vllm.tensor_parallel} GPUs takes as many training processes, and {stage.name} has "
            f"{processes}",
            where=f"{stage.program}.tensor_parallel",
            fix=f"Set execution.launch.{stage.name}.processes to a multiple of it, or leave it out.",
        )


def _check_what_needs_gpus(on_cpu: list[Stage]) -> None:
    """All at once, so that one command puts it right."""
    needs = [need for stage in on_cpu for need in stage.kind.needs_gpu(stage.settings)]
    settings = {need.setting: need.instead for need in needs}
    if needs:
        message = "; ".join(dict.fromkeys(need.message for need in needs))
        sets = " ".join(f"--set {setting}={instead}" for setting, instead in settings.items())
        where = ", ".join(settings)
        raise ConfigError(f"{message}, and this run is on the CPU", where=where, fix=f"Use `{sets}`.")


def _check_libraries(stages: list[Stage]) -> None:
    """What stages import that the pipeline's own interpreter runs is there; of others, `Interpreters` knows."""
    for stage in stages:
        vllm = stage.kind.vllm(stage.settings)
        if vllm is not None and importlib.util.find_spec("vllm") is None:
            instead = f"choose `--set {vllm.setting}=transformers` (slower at scale)"
            fix = f"Install the pinned set ({how_to_install()}), or {instead}."
            raise ConfigError("vLLM is not installed", where=vllm.setting, fix=fix)
        for setting, module in stage.kind.modules(stage.settings):
            if importlib.util.find_spec(module) is None:
                fix = f"pip install {module}, or leave it out."
                raise ConfigError(f"{module} is not installed", where=setting, fix=fix)
        if "torch" in stage.kind.libraries and importlib.util.find_spec("torch") is None:
            raise ConfigError("torch is not installed", fix=f"{how_to_install()}, then vcore doctor.")


def _check_environment(stages: list[Stage]) -> None:
    for stage in stages:
        for setting, variable in stage.kind.environment(stage.settings):
            if not os.environ.get(variable, "").strip():
                fix = f"Set it for this command: export {variable}=..."
                raise ConfigError(f"the environment has no {variable}", where=setting, fix=fix)


def _model_settings(config: PipelineConfig) -> dict[str, Any]:
    """The model's settings as in its config.json, as far as known without the hub; empty for a model of the hub."""
    if config.model == MAKE:
        return {"max_position_embeddings": config.base.max_position_embeddings, "head_dim": config.base.head_dim}
    folder = Path(config.model).expanduser()
    file = folder / "config.json"
    if not file.is_file():
        if folder.is_dir() and gguf_file(config.model) is None:
            message = f"{config.model} holds no config.json: not a checkpoint folder"
            raise ConfigError(message, where="model", fix="Name a Hugging Face checkpoint.")
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


def _check_heads(config: PipelineConfig, on_cpu: list[Stage]) -> None:
    """On a CPU vLLM has attention for some head sizes only."""
    engines = [vllm for stage in on_cpu if (vllm := stage.kind.vllm(stage.settings)) is not None and vllm.engine]
    if not engines:
        return
    model = _model_settings(config)
    size = model.get("head_dim")
    if size is None and {"hidden_size", "num_attention_heads"} <= model.keys():
        size = model["hidden_size"] // model["num_attention_heads"]
    if isinstance(size, int) and size not in HEAD_SIZES:
        raise ConfigError(
            f"vLLM on a CPU has no attention for heads of {size}; it has {', '.join(map(str, HEAD_SIZES))}",
            where="base.head_dim" if config.model == MAKE else "model",
            fix="Use another size, or the engine and rollout `transformers`.",
        )


def _check_compiler(on_cpu: list[Stage]) -> None:
    """What compiles a model has the compiler that torch takes: CXX, else g++."""
    compiler = os.environ.get("CXX") or "g++"
    for stage in on_cpu:
        vllm = stage.kind.vllm(stage.settings)
        if vllm is not None and vllm.cpu_compile and shutil.which(compiler) is None:
            message = f"compiling a model takes a C++ compiler, and there is no {compiler}"
            fix = "Install one (apt install g++), name it in CXX, or leave the setting out."
            raise ConfigError(message, where=f"{stage.program}.cpu_compile", fix=fix)
