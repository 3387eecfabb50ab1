"""A tiny random Qwen3 checkpoint with its own tokenizer, demonstrations for it, and a way to run a stage program on
them.

Nothing is downloaded and nothing is read from outside: every test that needs "a model" makes this one in under a
second.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "<|im_start|>assistant\n{% generation %}{{ message['content'] }}<|im_end|>\n{% endgeneration %}"
    "{% else %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NAMES = ("Mia", "Tom", "Ada", "Ben")


def tiny_demonstrations(rows: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of an `sft.jsonl`: one-step additions with the sum in a box, as conversational prompt and completion."""
    draw = random.Random(seed)
    made = []
    for index in range(rows):
        name, first, second = draw.choice(NAMES), draw.randint(2, 9), draw.randint(2, 9)
        working = f"{first}+{second}={first + second}. " * draw.randint(1, 3)
        made.append(
            {
                "id": f"tiny-{index}",
                "prompt": [{"role": "user", "content": f"{name} has {first} coins and gets {second}. How many now?"}],
                "completion": [{"role": "assistant", "content": f"{working}\\boxed{{{first + second}}}"}],
            }
        )
    return made


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write one JSON object per line, making the folder where needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def make_tiny_model(folder: Path, seed: int = 0, hidden_size: int = 32, layers: int = 2, positions: int = 256) -> Path:
    """Write a complete random Qwen3 checkpoint (float32, 28,608 parameters by default) and its tokenizer; returns
    `folder`."""
    import torch
    from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

    tokenizer = make_tiny_tokenizer()
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=max(8, hidden_size // 4),
        max_position_embeddings=positions,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config).to(torch.float32)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_tiny_tokenizer() -> Any:
    """A byte-level BPE of 312 tokens with the ChatML template; end of turn is `<|im_end|>`, padding `<|pad|>`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    text = [row[part][0]["content"] for row in tiny_demonstrations(200, seed=1) for part in ("prompt", "completion")]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|pad|>")
    fast.chat_template = CHAT_TEMPLATE
    return fast


@dataclasses.dataclass(frozen=True)
class StageRun:
    """How a stage program ended: exit code, the error it wrote (or None), its progress events, and its folders."""

    code: int
    error: dict[str, str] | None
    events: list[dict[str, Any]]
    output: Path
    state: Path
    log: str

    @property
    def notes(self) -> list[str]:
        """The notes that the stage wrote for the person who watches."""
        return [event["message"] for event in self.events if event["event"] == "note"]


def write_spec(
    folder: Path,
    stage: str,
    settings: dict[str, Any],
    inputs: dict[str, Path],
    seed: int = 0,
    threads: int = 1,
    deterministic: bool = False,
    **details: Any,
) -> Path:
    """Write the SPEC.json of one stage run whose output and state live under `folder`; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = {
        "stage": stage,
        "settings": settings,
        "inputs": {name: str(path) for name, path in inputs.items()},
        "output": str(folder / "output"),
        "state": str(folder / "state"),
        "seed": seed,
        "machine": {"device": "cpu", "threads": threads, "deterministic": deterministic},
        "details": details,
        "parent": None,
    }
    path = folder / "SPEC.json"
    path.write_text(json.dumps(spec), encoding="utf-8")
    return path


def stage_environment() -> dict[str, str]:
    """The environment a stage program is started with: offline, quiet, one thread."""
    return {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "OMP_NUM_THREADS": "1",
    }


def run_stage_program(
    folder: Path,
    stage: str,
    settings: dict[str, Any],
    inputs: dict[str, Path],
    seed: int = 0,
    timeout_s: float = 300,
    **machine: bool,
) -> StageRun:
    """Run `python -m stages.STAGE SPEC.json` to its end, as the orchestrator would."""
    spec = write_spec(folder, stage, settings, inputs, seed, **machine)
    command = [sys.executable, "-m", f"stages.{stage}", str(spec)]
    done = subprocess.run(
        command, env=stage_environment(), capture_output=True, text=True, timeout=timeout_s, check=False
    )
    return read_stage_run(folder, done.returncode, done.stdout + done.stderr)


def read_stage_run(folder: Path, code: int, log: str) -> StageRun:
    """Collect what a stage program left in `folder`."""
    error, events = folder / "error.json", folder / "events.jsonl"
    return StageRun(
        code=code,
        error=json.loads(error.read_text(encoding="utf-8")) if error.exists() else None,
        events=[json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]
        if events.exists()
        else [],
        output=folder / "output",
        state=folder / "state",
        log=log,
    )


def open_stage(settings_type: Any, spec: Path) -> Any:
    """The `Context` that a stage program would build from a spec, for running a stage inside the test process."""
    from stages.harness.context import Context
    from stages.harness.documents import Spec

    document = Spec.model_validate_json(spec.read_bytes())
    context = Context(document, settings_type.model_validate(document.settings), spec)
    context.record.mkdir(parents=True, exist_ok=True)
    context.state.mkdir(parents=True, exist_ok=True)
    return context
