#!/usr/bin/env bash
# transformers: a Llama 3.1 (3.2, 3.3) model read from its GGUF file has lost its scaled rotary positions.
#
# Expected: a model read from GGUF computes what the checkpoint computes that the file was made from, or reading it fails.
# Seen (5.17.0): the weights are the same, and the logits are those of the model without rope_type llama3. A Llama 3.1 GGUF has the scaling
#   not in its metadata but as a tensor of factors, rope_freqs.weight, which llama.cpp divides the frequencies by. transformers has no
#   parameter of that name, and passes over tensors that it has no place for; the config says rope_type "default". No warning. Lower
#   frequencies then turn up to 8 (3.2: 32) times too fast: little changes near the beginning of a text (here a tenth of what changes at
#   its end), so short checks pass, and long contexts get worse without a visible reason. Whoever saves the model writes a checkpoint
#   with the scaling gone for good.
# Versions: transformers 5.17.0, gguf 0.19.0, torch 2.13.0, accelerate 1.15.0. The file is written here, from a random model of two layers, in float32.
#   Takes some minutes and 1.2 GB, or more where the index has only torch's CUDA build.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip --disable-pip-version-check install --quiet transformers==5.17.0 gguf==0.19.0 torch==2.13.0 accelerate==1.15.0

cat >"$folder/rope.py" <<'EOF'
import sys
from importlib.metadata import version

import gguf
import torch
from transformers import AutoModelForCausalLM, GgufConfig, LlamaConfig, LlamaForCausalLM

folder, POSITIONS = sys.argv[1], 4096
plain = {"rope_type": "default", "rope_theta": 500000.0}
scaled = {**plain, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
scaled["original_max_position_embeddings"] = 512
sizes = {"vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
sizes |= {"num_key_value_heads": 2, "max_position_embeddings": POSITIONS, "head_dim": 32, "tie_word_embeddings": False}
torch.manual_seed(0)
original = LlamaForCausalLM(LlamaConfig(**sizes, rope_parameters=scaled, initializer_range=0.3)).eval()
without = LlamaForCausalLM(LlamaConfig(**sizes, rope_parameters=plain)).eval()
without.load_state_dict(original.state_dict())

writer = gguf.GGUFWriter(f"{folder}/model.gguf", "llama")
writer.add_context_length(POSITIONS)
writer.add_embedding_length(64)
writer.add_block_count(2)
writer.add_feed_forward_length(96)
writer.add_head_count(2)
writer.add_head_count_kv(2)
writer.add_rope_dimension_count(32)
writer.add_rope_freq_base(500000.0)
writer.add_layer_norm_rms_eps(original.config.rms_norm_eps)
writer.add_vocab_size(96)
names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
for name, weight in original.state_dict().items():
    if "q_proj" in name or "k_proj" in name:  # GGUF keeps the two halves of a rotation beside each other
        weight = weight.reshape(2, 2, 16, 64).swapaxes(1, 2).reshape(64, 64)
    writer.add_tensor(f"{names.get_name(name.removesuffix('.weight'))}.weight", weight.contiguous().numpy())
factors = without.model.rotary_emb.inv_freq / original.model.rotary_emb.inv_freq
writer.add_tensor("rope_freqs.weight", factors.numpy())  # as llama.cpp's converter writes the scaling
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

read = AutoModelForCausalLM.from_pretrained(
    folder, gguf_file="model.gguf", quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
).eval()
print("python", sys.version.split()[0], *(f"{name} {version(name)}" for name in ("transformers", "gguf", "torch")))
same = all(torch.equal(weight, read.state_dict()[name]) for name, weight in original.state_dict().items())
kind = read.config.rope_parameters["rope_type"]
print(f"factors in the file: 1 to {factors.max():g}; weights read are the same: {same}; rope_type read: {kind}")
ids = torch.randint(0, 96, (1, POSITIONS), generator=torch.Generator().manual_seed(1))
with torch.no_grad():
    logits = {name: model(ids).logits[0] for name, model in (("original", original), ("without", without), ("read", read))}
for first, last in ((0, 8), (POSITIONS - 8, POSITIONS)):
    to = {name: float((logits["read"] - logits[name])[first:last].abs().max()) for name in ("original", "without")}
    print(f"positions {first} to {last}: logits differ from the original's by {to['original']:.1e}, from those without scaling by {to['without']:.1e}")
gone = to["original"] > 0.1 and to["without"] < 1e-3
sys.exit(0 if same and kind == "default" and gone else "the behaviour has changed")
EOF

HF_HUB_OFFLINE=1 "$python" "$folder/rope.py" "$folder" 2>&1 | grep -v "it/s"
