"""Options of TRL's trainers: those that every stage sets alike, and the check of those that a user adds."""

import dataclasses
import json
import os
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from evaluation.harness.nearest import nearest_name
from stages.harness.context import Context, StageError
from stages.harness.json_files import write_json


def shared_trainer_options(ctx: Context[Any], *, logging_steps: int, checkpoint_steps: int) -> dict[str, Any]:
    """The `TrainingArguments` that every stage sets alike: seeds, device, logging, checkpoints in `ctx.state`."""
    on_cpu = ctx.machine.device == "cpu"
    return {
        "output_dir": str(ctx.state / "checkpoints"),
        "seed": ctx.seed,
        "data_seed": ctx.seed,
        "use_cpu": on_cpu,
        "logging_strategy": "steps",
        "logging_steps": logging_steps,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # a loss that is not finite must be seen
        "save_strategy": "steps",
        "save_steps": checkpoint_steps,
        "save_total_limit": 2,
        "eval_strategy": "no",
        "report_to": list(ctx.settings.trackers) or "none",
        "disable_tqdm": True,
        "push_to_hub": False,
        "dataloader_num_workers": 0,
        "average_tokens_across_devices": True,
        "ddp_backend": "gloo" if on_cpu and "RANK" in os.environ else None,
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": ctx.machine.device == "cuda",
    }


def check_options(options: Mapping[str, Any], config_class: type, owned: Mapping[str, str]) -> None:
    """Check a user's `trainer:` mapping against TRL's own config class.

    Args:
        options: what the user wrote.
        config_class: `trl.SFTConfig` or `trl.GRPOConfig`.
        owned: option that the pipeline sets itself -> where a user sets it instead.

    Raises:
        StageError: an option that does not exist (with the nearest that does), that is owned, or of the wrong type.
    """
    name_of_class = config_class.__name__
    fields = {field.name for field in dataclasses.fields(config_class)}
    types = typing.get_type_hints(config_class)
    for name, value in options.items():
        if name in owned:
            raise StageError(f"trainer.{name}: this option is set by the pipeline", f"Use {owned[name]} instead.")
        if name not in fields:
            near = nearest_name(name, fields - set(owned), cutoff=0.5)
            hint = f"Did you mean {near}? " if near is not None else ""
            fix = f"{hint}See the documentation of trl.{name_of_class}."
            raise StageError(f"trainer.{name}: {name_of_class} has no such option", fix)
        try:
            TypeAdapter(types[name]).validate_python(value)
        except ValidationError as error:
            reason = "; ".join(sorted({item["msg"] for item in error.errors()}))
            fix = f"{name_of_class} wants {types[name]}."
            raise StageError(f"trainer.{name}: {value!r} does not fit: {reason}", fix) from None


def record_config(ctx: Context[Any], config: Any) -> None:
    """Write the trainer's whole configuration to `record/trainer_config.json`, of paths their last part only."""
    plain: dict[str, Any] = json.loads(json.dumps(config.to_dict(), default=str))
    shown = {
        name: Path(value).name if isinstance(value, str) and value.startswith("/") else value
        for name, value in plain.items()
        if name not in ("output_dir", "logging_dir", "run_name")
    }
    write_json(ctx.record / "trainer_config.json", shown)
