#!/usr/bin/env bash
# TRL: with top_entropy_quantile, GRPO's gradient depends on how a batch is cut into micro-batches.
#
# Expected: per_device_train_batch_size and gradient_accumulation_steps decide about memory. With loss_type="dapo" one step over the same
#   eight completions has the same gradient whether they come as one micro-batch or as eight: TRL divides by the tokens of the whole step.
# Seen (1.16.0): true for top_entropy_quantile=1.0, to rounding. With 0.2 the gradient differs by half its norm. The entropy above which a token
#   counts is a quantile of the micro-batch alone. It is gathered across processes, so more GPUs change nothing, but not across the steps of
#   gradient accumulation: halving the micro-batch after an out-of-memory error quietly trains on other tokens.
# Versions: trl 1.16.0, transformers 5.17.0, torch 2.13.0, accelerate 1.15.0, datasets 5.2.0.
# Takes some minutes and 1.5 GB, or more where the index has only torch's CUDA build. A random model of two small layers, on the CPU.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip --disable-pip-version-check install --quiet trl==1.16.0 transformers==5.17.0 torch==2.13.0 accelerate==1.15.0 datasets==5.2.0

cat >"$folder/gradients.py" <<'EOF'
import logging
import sys
import tempfile
import warnings
from importlib.metadata import version

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, PrinterCallback, Qwen3Config, Qwen3ForCausalLM, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
WORDS = ["<pad>", "<end>", *(f"w{number}" for number in range(62))]


def model() -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 16}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    tokens = {"vocab_size": len(WORDS), "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    return Qwen3ForCausalLM(Qwen3Config(**sizes, **heads, **tokens, initializer_range=0.3))


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<end>")


def gradient(quantile: float, micro_batch: int) -> tuple[torch.Tensor, list[str]]:
    """The gradient of one optimizer step over eight completions, and these completions."""
    gradients: list[torch.Tensor] = []
    texts: list[str] = []

    class Record(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
            gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).clone())

    def different_words(completions, **kwargs):
        texts.extend(completions)
        return [float(len(set(text.split()))) for text in completions]

    with tempfile.TemporaryDirectory() as folder:
        arguments = GRPOConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=False,
            seed=0,
            max_steps=1,
            per_device_train_batch_size=micro_batch,
            gradient_accumulation_steps=8 // micro_batch,
            num_generations=4,
            max_completion_length=24,
            loss_type="dapo",
            top_entropy_quantile=quantile,
            max_grad_norm=1e9,
            gradient_checkpointing=False,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        prompts = Dataset.from_dict({"prompt": ["w1 w2 w3", "w9 w8 w7 w6"]})
        trainer = GRPOTrainer(
            model(), different_words, arguments, prompts, processing_class=tokenizer(), callbacks=[Record()]
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    [one] = gradients
    return one, texts


names = ("trl", "transformers", "torch", "accelerate", "datasets")
print("python", sys.version.split()[0], *(f"{name} {version(name)}" for name in names))
largest = {}
for quantile in (1.0, 0.2):
    whole, completions = gradient(quantile, 8)
    largest[quantile] = 0.0
    for micro_batch in (4, 2, 1):
        parts, again = gradient(quantile, micro_batch)
        assert again == completions, "the same eight completions"
        change = float((parts - whole).norm() / whole.norm())
        largest[quantile] = max(largest[quantile], change)
        print(f"top_entropy_quantile {quantile}: as {8 // micro_batch} micro-batches of {micro_batch}, changed by {change:.1e} of its norm")
sys.exit(0 if largest[1.0] < 1e-5 and largest[0.2] > 0.05 else "the behaviour has changed")
EOF

HF_HUB_OFFLINE=1 HF_HOME="$folder/home" "$python" "$folder/gradients.py"
