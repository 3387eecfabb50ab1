"""The contract between checkpoints: what has to hold in the one that a stage starts from, checked and recorded."""

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, GenerationConfig, StoppingCriteriaList

from evaluation.chat import chat_template
from evaluation.engines.base import end_token_ids
from stages.harness.context import StageError

ADAPTER = "adapter_config.json"
TORCH_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Names of types in safetensors files -> in torch."""


def check_files(folder: Path, tokenizer: Any) -> dict[str, Any]:
    """Check what has to hold between the files of a checkpoint that is sampled from, without loading its weights.

    It is less than training asks for (`check_contract`): any model can be evaluated, also one that leaves the end token
    to its tokenizer, or whose files pad differently.

    Returns:
        The contract, for the stage's record: digests of tokenizer and chat template, special tokens, ids, sizes, type.

    Raises:
        StageError: files that contradict each other, all of them named.
    """
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    if (folder / "generation_config.json").is_file():
        generation = GenerationConfig.from_pretrained(folder, local_files_only=True)
    else:
        generation = GenerationConfig.from_model_config(config)
    text = config.get_text_config()
    wrong = []
    if len(tokenizer) > text.vocab_size:
        wrong.append(f"the tokenizer has {len(tokenizer)} tokens, config.json {text.vocab_size}")
    return _contract(folder, text, generation, tokenizer, text.vocab_size, wrong)


def check_contract(folder: Path, model: Any, tokenizer: Any) -> dict[str, Any]:
    """Check what has to hold between the parts of a checkpoint that is trained on, its weights included.

    Returns:
        The contract as `check_files` gives it, and the number of embeddings.

    Raises:
        StageError: parts that contradict each other, all of them named.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    config, generation, padding = model.config.get_text_config(), model.generation_config, tokenizer.pad_token_id
    wrong = []
    if generation.eos_token_id is None:
        wrong.append("generation_config.json names no end token")
    if padding is not None and generation.pad_token_id not in (None, padding):
        wrong.append(f"generation_config.json pads with {generation.pad_token_id}, the tokenizer with {padding}")
    if config.vocab_size != rows:
        wrong.append(f"config.json has vocab_size {config.vocab_size}, the weights {rows} embeddings")
    return {**_contract(folder, config, generation, tokenizer, rows, wrong), "embeddings": rows}


def _contract(
    folder: Path, config: Any, generation: Any, tokenizer: Any, rows: int, wrong: list[str]
) -> dict[str, Any]:
    """The contract. StageError where something is `wrong`, or end, padding or folder do not fit `rows` tokens."""
    declared, end, padding = generation.eos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    ends = end_token_ids(tokenizer, generation)
    contradictions = []
    if None not in (declared, end) and end not in ([declared] if isinstance(declared, int) else list(declared)):
        contradictions.append(
            f"generation_config.json ends on {declared!r}, the tokenizer on {end} ({tokenizer.eos_token})"
        )
    ids = [index for index in [*ends, padding] if index is not None]
    if outside := [index for index in ids if not (isinstance(index, int) and 0 <= index < rows)]:
        contradictions.append(f"the ids {outside} of end or padding lie outside the {rows} embeddings")
    if (folder / ADAPTER).is_file():
        contradictions.append(f"{ADAPTER} lies beside complete weights: it is not known whether the adapter is merged")
    if contradictions or wrong:
        problem = f"{folder}: not a checkpoint to go on from: {'; '.join(contradictions + wrong)}"
        raise StageError(problem, "Correct its files, or train it again.")
    template = chat_template(tokenizer)  # a base model may have none, and is sampled without
    return {
        "tokenizer_sha256": tokenizer_digest(tokenizer),
        "chat_template_sha256": sha256(template.encode()).hexdigest() if template else None,
        "special_tokens": {name: str(token) for name, token in sorted(tokenizer.special_tokens_map.items())},
        "end_token_ids": ends,
        "pad_token_id": padding,
        "vocabulary": len(tokenizer),
        "max_length": config.max_position_embeddings,
        "dtype": stored_dtype(folder),
    }


def stored_dtype(folder: Path) -> str | None:
    """The type of the weights in the folder's safetensors, whatever they are loaded as; several are joined by commas.

    None where there are none (weights of another format, or none yet).
    """
    dtypes = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            dtypes |= {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - no mapping
    return ",".join(sorted(TORCH_DTYPES.get(name, name) for name in dtypes)) or None


def tokenizer_digest(tokenizer: Any) -> str:
    """sha256 of what decides token ids; padding and truncation, which every load may set anew, are left out."""
    if tokenizer.is_fast:
        backend = json.loads(tokenizer.backend_tokenizer.to_str())
        content = {name: part for name, part in backend.items() if name not in ("padding", "truncation")}
    else:
        content = tokenizer.get_vocab()
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def check_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Raise StageError where training changed what it must hand on unchanged; the type of the weights is free."""
    names = [name for name in before if name != "dtype" and before[name] != after[name]]
    if names:
        changes = "; ".join(f"{name}: {before[name]} -> {after[name]}" for name in names)
        message = f"the saved checkpoint breaks the contract of the one it came from: {changes}"
        raise StageError(message, "This is an error.")


def check_stops(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], max_new_tokens: int, temperature: float
) -> int:
    """Sample a completion of each prompt (token ids), with torch's global generator, until one ends; its tokens.

    Raises:
        StageError: none ends within `max_new_tokens`.
    """
    ends = end_token_ids(tokenizer, model.generation_config)
    inputs = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt").to(model.device)

    def some_row_ended(ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        ended = torch.isin(ids[:, -1], torch.tensor(ends, device=ids.device)).any()
        return ended.expand(ids.shape[0]).clone()  # ends the whole batch: one stop is all there is to show

    with torch.no_grad():
        sampled = model.generate(
            **inputs,
            do_sample=True,
            temperature=temperature,
            top_p=1.0,
            top_k=0,
            max_new_tokens=max_new_tokens,
            eos_token_id=ends,
            pad_token_id=tokenizer.pad_token_id,
            stopping_criteria=StoppingCriteriaList([some_row_ended]),
        )
    new = sampled[:, inputs["input_ids"].shape[1] :]
    if not some_row_ended(new).any():
        raise StageError(
            f"none of {len(prompts)} sampled completions stopped on an end token ({ends}) within {max_new_tokens} "
            "tokens: there is nothing to reward",
            "Raise grpo.max_completion_length, or train SFT longer, on completions that end; "
            "grpo.stop_check_prompts: 0 skips the check.",
        )
    return int(new.shape[1])
