"""The contract between checkpoints: what a stage must find in the one it starts from, checked and written down before it trains or samples.

Imports torch and transformers: only a stage process imports this module.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, GenerationConfig, StoppingCriteria, StoppingCriteriaList

from evaluation.engines.base import end_token_ids
from stages.harness.context import StageError

ADAPTER = "adapter_config.json"
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Names of safetensors -> of torch."""


def check_files(folder: Path, tokenizer: Any) -> dict[str, Any]:
    """What has to hold between the files of a checkpoint that is sampled from, without loading its weights.

    Less than what training asks for: any model can be evaluated, one that leaves the end token to its tokenizer, or whose files pad
    differently, too.

    Args:
        folder: the checkpoint folder that the tokenizer was loaded from.

    Returns:
        The contract for the stage's record: digests of tokenizer and chat template, special tokens, end and padding ids, sizes, type.

    Raises:
        StageError: files that contradict each other, all of them named.
    """
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    if (folder / "generation_config.json").is_file():
        generation = GenerationConfig.from_pretrained(folder, local_files_only=True)
    else:
        generation = GenerationConfig.from_model_config(config)
    text = config.get_text_config()
    wrong = _contradictions(folder, generation, tokenizer, text.vocab_size)
    if len(tokenizer) > text.vocab_size:
        wrong.append(f"the tokenizer has {len(tokenizer)} tokens, config.json {text.vocab_size}")
    _refuse(folder, wrong)
    return _contract(folder, text, generation, tokenizer)


def check_contract(folder: Path, model: Any, tokenizer: Any) -> dict[str, Any]:
    """The same of a checkpoint that was loaded, with what has to hold between its weights and the rest.

    Args:
        folder: the checkpoint folder that both were loaded from.

    Raises:
        StageError: parts that contradict each other, all of them named.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    config = model.config.get_text_config()
    wrong = _contradictions(folder, model.generation_config, tokenizer, rows)
    if model.generation_config.eos_token_id is None:
        wrong.append("generation_config.json names no end token")
    padding = model.generation_config.pad_token_id
    if tokenizer.pad_token_id is not None and padding not in (None, tokenizer.pad_token_id):
        wrong.append(f"generation_config.json pads with {padding}, the tokenizer with {tokenizer.pad_token_id}")
    if config.vocab_size != rows:
        wrong.append(f"config.json has vocab_size {config.vocab_size}, the weights {rows} embeddings")
    _refuse(folder, wrong)
    return {**_contract(folder, config, model.generation_config, tokenizer), "embeddings": rows}


def _contradictions(folder: Path, generation: Any, tokenizer: Any, rows: int) -> list[str]:
    """What is wrong about end and padding ids, the vocabulary of `rows` tokens, and the folder."""
    wrong = []
    declared = generation.eos_token_id
    ends = [declared] if isinstance(declared, int) else declared
    if None not in (ends, tokenizer.eos_token_id) and tokenizer.eos_token_id not in ends:
        wrong.append(
            f"generation_config.json ends on {declared}, the tokenizer on {tokenizer.eos_token_id} ({tokenizer.eos_token})"
        )
    ids = [*end_token_ids(tokenizer, generation), *([] if tokenizer.pad_token_id is None else [tokenizer.pad_token_id])]
    if outside := [index for index in ids if not 0 <= index < rows]:
        wrong.append(f"the ids {outside} of end or padding lie outside the {rows} embeddings")
    if (folder / ADAPTER).is_file():
        wrong.append(f"{ADAPTER} lies beside complete weights: it is not known whether the adapter is merged")
    return wrong


def _refuse(folder: Path, wrong: list[str]) -> None:
    if wrong:
        raise StageError(
            f"{folder}: not a checkpoint to go on from: {'; '.join(wrong)}", "Correct its files, or train it again."
        )


def _contract(folder: Path, config: Any, generation: Any, tokenizer: Any) -> dict[str, Any]:
    template = tokenizer.chat_template  # a base model may have none, and is sampled without
    return {
        "tokenizer_sha256": tokenizer_digest(tokenizer),
        "chat_template_sha256": sha256(template.encode()).hexdigest() if isinstance(template, str) else None,
        "special_tokens": {name: str(token) for name, token in sorted(tokenizer.special_tokens_map.items())},
        "end_token_ids": end_token_ids(tokenizer, generation),
        "pad_token_id": tokenizer.pad_token_id,
        "vocabulary": len(tokenizer),
        "max_length": config.max_position_embeddings,
        "dtype": stored_dtype(folder),
    }


def stored_dtype(folder: Path) -> str | None:
    """The type of the weights as they lie in the folder's safetensors, whatever they are loaded as; several types are joined by commas.

    None where there are none (weights of another format, or none yet).
    """
    found = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            found |= {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - no mapping
    return ",".join(sorted(_DTYPES.get(name, name) for name in found)) or None


def tokenizer_digest(tokenizer: Any) -> str:
    """sha256 of what decides token ids; padding and truncation, which every load may set anew, are left out."""
    if not tokenizer.is_fast:
        return sha256(json.dumps(tokenizer.get_vocab(), sort_keys=True).encode()).hexdigest()
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content.pop("padding", None)
    content.pop("truncation", None)
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def check_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Raise StageError where training changed what it must hand on as it was (the type of the weights is the run's own choice)."""
    changed = [
        f"{name}: {before[name]} -> {after[name]}" for name in before if name != "dtype" and before[name] != after[name]
    ]
    if changed:
        raise StageError(
            f"the saved checkpoint breaks the contract of the one it came from: {'; '.join(changed)}",
            "This is an error.",
        )


def check_stops(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int, temperature: float
) -> int:
    """Sample one completion of each prompt until the first of them ends with an end token. Uses torch's global generator.

    Args:
        prompts: token ids.

    Returns:
        Tokens until the first stop.

    Raises:
        StageError: none stops within `max_new_tokens`.
    """
    ends = end_token_ids(tokenizer, model.generation_config)
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), longest), tokenizer.pad_token_id, device=model.device)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    with torch.no_grad():
        sampled = model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=True,
            temperature=temperature,
            top_p=1.0,
            top_k=0,
            max_new_tokens=max_new_tokens,
            eos_token_id=ends,
            pad_token_id=tokenizer.pad_token_id,
            stopping_criteria=StoppingCriteriaList([_FirstEnd(ends)]),
        )
    new = sampled[:, longest:]
    if not torch.isin(new[:, -1], torch.tensor(ends, device=new.device)).any():
        raise StageError(
            f"none of {len(prompts)} sampled completions stopped on an end token ({ends}) within {max_new_tokens} tokens: "
            "there is nothing to reward",
            "Raise grpo.max_completion_length, or train SFT longer, on completions that end; grpo.stop_check_prompts: 0 skips the check.",
        )
    return int(new.shape[1])


class _FirstEnd(StoppingCriteria):  # type: ignore[misc]
    """Ends the whole batch when one row ends: one stop is all there is to show."""

    def __init__(self, ends: list[int]) -> None:
        self.ends = ends

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        ended = torch.isin(input_ids[:, -1], torch.tensor(self.ends, device=input_ids.device)).any()
        return ended.expand(input_ids.shape[0]).clone()
