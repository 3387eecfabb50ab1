"""Whether a checkpoint folder is complete: it loads, and its tokenizer, template and settings fit together."""

from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from evaluation.chat import check_chat_template, pin_date
from stages.harness.context import StageError


def verify(model_folder: Path, source: str, chat: bool = True) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the checkpoint with strict weights and check its tokenizer. Nothing is repaired.

    Raises:
        StageError: something does not load, weights are missing, there is no usable chat template where `chat` asks for
            one, no end-of-sequence token, or the tokenizer has more entries than the embedding.
    """
    try:
        AutoConfig.from_pretrained(model_folder)
        tokenizer = AutoTokenizer.from_pretrained(model_folder)
        model, loading = AutoModelForCausalLM.from_pretrained(model_folder, dtype="auto", output_loading_info=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        raise StageError(
            f"model {source} does not load: {str(error).strip().splitlines()[0]}",
            "It must be a complete causal language model (config, tokenizer, safetensors) of a type known to this "
            "version of transformers.",
        ) from error
    if loading["missing_keys"] or loading["mismatched_keys"]:
        missing = sorted(map(str, [*loading["missing_keys"], *loading["mismatched_keys"]]))
        raise StageError(
            f"model {source}: {len(missing)} weights are missing or have another shape, first {missing[0]}",
            "Name a complete checkpoint.",
        )
    pin_date(tokenizer, None)
    try:
        if chat:
            check_chat_template(tokenizer)
    except ValueError as error:
        raise StageError(
            f"model {source}: {error}",
            "Set tokenizer.chat_template (for a base model, for example to that of its instruct version) and save the "
            "tokenizer into a local copy of the checkpoint.",
        ) from error
    if tokenizer.eos_token_id is None:
        raise StageError(
            f"model {source}: its tokenizer has no end-of-sequence token",
            "Set eos_token in a local copy of the checkpoint.",
        )
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise StageError(
            f"model {source}: {len(tokenizer)} tokenizer entries, {rows} embeddings",
            "Resize the embeddings in a local copy.",
        )
    if not all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters()):
        raise StageError(f"model {source} has weights that are not finite", "Name another checkpoint.")
    return model, tokenizer
