"""What training uses of torch, transformers and peft although they do not promise it: private or undocumented names.

Each is used here alone. tests/stages/training/test_library_internals.py tries each one, and says what to read where a
new version has changed it.
"""

import functools
from collections.abc import Iterator
from typing import Any

import torch
from peft.tuners.lora import LoraLayer


@functools.cache  # torch sorts what is registered, and cannot sort the same twice
def load_onto_numbered_cpus() -> None:
    """Let torch load tensors onto the device `cpu:N`; by itself it knows `cpu` only.

    One of several processes on a CPU has such a device, onto which the Trainer loads its optimizer. Relies on
    `torch.serialization.register_package`, and on torch asking the next deserializer where one returns None.
    """
    torch.serialization.register_package(
        0, lambda storage: None, lambda storage, place: storage if place.startswith("cpu:") else None
    )


def load_weights(trainer: Any, checkpoint: str) -> None:
    """Load the weights of a Trainer's checkpoint into its model, and nothing else of the checkpoint.

    Relies on `transformers.Trainer._load_from_checkpoint`, with which `train(resume_from_checkpoint=...)` begins.
    """
    trainer._load_from_checkpoint(checkpoint)


def merged_parameters(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """A model's parameters with its adapter added, by their names without it, one at a time; the model is left alone.

    peft merges in place and subtracts again, and what is left differs by rounding: the weights below the adapter would
    move with every step, in bfloat16 by much, and a resumed run would go on from others. Relies on peft's names of
    parameters: `model.prefix` marks the adapter's own, `.base_layer.` the layers that it wraps.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    for name, parameter in model.named_parameters():
        if model.prefix in name:
            continue
        layer, _, part = name.partition(".base_layer.")
        data = parameter.data
        if part == "weight":
            with torch.no_grad():
                data = (data + layers[layer].get_delta_weight("default")).to(data.dtype)
        yield name.removeprefix("base_model.model.").replace(".base_layer", ""), data
