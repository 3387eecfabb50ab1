"""What training uses of torch, transformers and peft although they do not promise it: private or undocumented names.

Each is used here alone. tests/stages/training/test_library_internals.py tries each one, and says what to read where a
new version has changed it.
"""

import functools
import importlib
from collections.abc import Iterator
from typing import Any

import torch
import trl.trainer.utils
from peft.tuners.lora import LoraLayer

from stages.harness.context import StageError


@functools.cache  # torch sorts what is registered, and cannot sort the same twice
def load_onto_numbered_cpus() -> None:
    """Let torch load tensors onto the device `cpu:N`; by itself it knows `cpu` only.

    One of several processes on a CPU has such a device, onto which the Trainer loads its optimizer. Relies on
    `torch.serialization.register_package`, and on torch asking the next deserializer where one returns None.
    """
    torch.serialization.register_package(
        0, lambda storage: None, lambda storage, place: storage if place.startswith("cpu:") else None
    )


def score_labelled_positions_only() -> None:
    """Let TRL's fused output layer compute log-probabilities of labelled positions alone on a CPU, as on a GPU.

    Without Triton it computes them at every position, prompts and padding included, so that tensors keep their shapes
    for devices that compile for each shape; torch on a CPU does not. With a large vocabulary that is much of a step.
    Relies on `trl.trainer.utils._use_triton`, which that module reads for this choice alone.
    """
    trl.trainer.utils._use_triton = lambda device: True


def load_reference_on_the_cpu() -> None:
    """Let TRL load GRPO's reference model onto the CPU, from where FSDP takes each process' share.

    TRL does so for DDP and DeepSpeed; under FSDP it leaves `device_map="auto"`, which spreads the model over every GPU
    it sees before FSDP shards it. Relies on GRPOTrainer loading it by the name `create_model_from_path` of its module.
    """
    trainer: Any = importlib.import_module("trl.trainer.grpo_trainer")
    trainer.create_model_from_path = functools.partial(trl.trainer.utils.create_model_from_path, device_map=None)


def load_weights(trainer: Any, checkpoint: str) -> None:
    """Load the weights of a Trainer's checkpoint into its model, and nothing else of the checkpoint.

    Relies on `transformers.Trainer._load_from_checkpoint`, with which `train(resume_from_checkpoint=...)` begins.
    """
    trainer._load_from_checkpoint(checkpoint)


def merged_parameters(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """A model's parameters with its adapter added, by their names without it, one at a time; the model is left alone.

    peft merges in place and subtracts again, and what is left differs by rounding: the weights below the adapter would
    move with every step, in bfloat16 by much, and a resumed run would go on from others. Relies on peft's names of
    parameters (`model.prefix` marks the adapter's own, `.base_layer` the layers that it wraps, `modules_to_save` and
    `original_module` what is trained whole), and on `parameter_name` for an adapter of a parameter, such as all experts
    of a layer, of which several may be wrapped around one module.

    Raises:
        StageError: an adapter that these parameters would leave out, before the first of them.
    """
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)]
    parameters = dict(model.named_parameters())
    adapted: dict[int, list[LoraLayer]] = {id(parameter): [] for parameter in parameters.values()}
    for name, layer in layers:
        parameter = getattr(layer.get_base_layer(), getattr(layer, "parameter_name", "weight"), None)
        if id(parameter) not in adapted or "default" in layer.lora_variant or not hasattr(layer, "get_delta_weight"):
            problem = f"the adapter of {name} ({type(layer).__name__}) cannot be added to its weights for the sampler"
            raise StageError(problem, "Leave it out of lora.targets, or set grpo.rollout: transformers.")
        adapted[id(parameter)].append(layer)
    for name, parameter in parameters.items():
        if model.prefix in name or ".original_module." in name:
            continue
        data = parameter.data
        with torch.no_grad():
            for layer in adapted[id(parameter)]:
                data = (data + layer.get_delta_weight("default")).to(data.dtype)
        plain = name.removeprefix("base_model.model.").replace(".base_layer", "")
        yield plain.replace(".modules_to_save.default", ""), data
