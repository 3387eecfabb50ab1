#!/usr/bin/env bash
# TRL: a GRPO step on completions that all earn the same reward moves the weights as far as any other step, if that reward is 1.1.
#
# Expected: where all completions of a prompt earn the same, every advantage is zero, nothing is learnt, and frac_reward_zero_std says so.
# Seen (1.16.0): true for a reward of 1.0. With 1.1, as correctness and a tenth for the form give it, float32 rounds the mean of the group,
#   so rewards minus mean are 1e-7 instead of 0; divided by a standard deviation of 1e-7 plus 1e-4 that is an advantage of 0.001 for all,
#   with one sign. Adam takes out the gradient's size, so the mean weight moves by 0.97 learning rates, as in a step with rewards that
#   differ (0.98), towards whatever was sampled. frac_reward_zero_std is 0.0: the deviation is not within 1e-8 of zero.
#   It costs whoever trains on prompts that are solved by all or by none, with rewards that are no binary fractions: the fewer groups
#   differ, the more of a step is this.
# Versions: trl 1.16.0, transformers 5.17.0, torch 2.13.0, accelerate 1.15.0, datasets 5.2.0.
# Takes some minutes and 1.5 GB, or more where the index has only torch's CUDA build. A random model of two small layers, on the CPU.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip --disable-pip-version-check install --quiet trl==1.16.0 transformers==5.17.0 torch==2.13.0 accelerate==1.15.0 datasets==5.2.0

cat >"$folder/equal.py" <<'EOF'
import logging
import sys
import tempfile
import warnings
from importlib.metadata import version

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, PrinterCallback, Qwen3Config, Qwen3ForCausalLM
from trl import GRPOConfig, GRPOTrainer

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
WORDS = ["<pad>", "<end>", *(f"w{number}" for number in range(62))]
RATE = 1e-3


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


def step(rewards: list[float]) -> tuple[float, dict[str, float]]:
    """One step on one prompt, and what it did: the mean change of a weight over the learning rate, and TRL's metrics."""

    def given(completions, **kwargs):
        return rewards

    with tempfile.TemporaryDirectory() as folder:
        arguments = GRPOConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=False,
            seed=0,
            max_steps=1,
            learning_rate=RATE,
            per_device_train_batch_size=12,
            num_generations=12,
            max_completion_length=16,
            gradient_checkpointing=False,
            report_to=[],
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
        )
        prompts = Dataset.from_dict({"prompt": ["w1 w2 w3"]})
        network = model()
        before = [parameter.detach().clone() for parameter in network.parameters()]
        trainer = GRPOTrainer(network, given, arguments, prompts, processing_class=tokenizer())
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        pairs = zip(network.parameters(), before, strict=True)
        moved = torch.cat([(now.detach() - was).abs().flatten() for now, was in pairs])
        told = next(entry for entry in trainer.state.log_history if "frac_reward_zero_std" in entry)
        return float(moved.mean()) / RATE, told


names = ("trl", "transformers", "torch", "accelerate", "datasets")
print("python", sys.version.split()[0], *(f"{name} {version(name)}" for name in names))
cases = {"all 1.0": [1.0] * 12, "all 1.1": [1.1] * 12, "six 0.0, six 1.1": [0.0, 1.1] * 6}
moved = {}
for case, rewards in cases.items():
    moved[case], told = step(rewards)
    print(f"rewards {case}: the mean weight moved by {moved[case]:.3f} learning rates; TRL logs frac_reward_zero_std "
          f"{told['frac_reward_zero_std']}, reward_std {told['reward_std']:.1e}, grad_norm {told['grad_norm']:.1e}")
same = moved["all 1.0"] == 0 and moved["all 1.1"] > 0.3
sys.exit(0 if same else "the behaviour has changed")
EOF

HF_HUB_OFFLINE=1 HF_HOME="$folder/home" "$python" "$folder/equal.py"
