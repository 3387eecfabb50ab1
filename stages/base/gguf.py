"""A checkpoint out of a GGUF file: weights dequantised, and the tokenizer that the file describes.

transformers reads both and leaves out some of what the file says (seen in 5.17.0): the ids of the special tokens, which
it takes from others or not at all; control tokens, of which it knows a fixed few; how text is cut before byte-pair
merging; the width of a head. This module does that part. What it cannot do rightly (scaled rotary positions, weights
without a place in the model, other ways to cut text) is an error, since it would only show in worse scores.
"""

import shutil
import struct
from collections import Counter
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from stages.harness.context import StageError

INSTEAD = "Take the safetensors checkpoint that the file was made from."
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4  # of tokenizer.ggml.token_type
_IDS = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,{}}}"
    r"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Llama 3 and Qwen cut a text into words; they differ in how many digits stay together."""


def convert(file: Path, model: Path, chat: bool) -> dict[str, Any]:
    """Write the checkpoint of a GGUF file into `model`, in float32, which holds every quantised value exactly.

    Returns:
        What the file says of itself, for the proof: architecture, and how many tensors of each quantisation type.

    Raises:
        StageError: the file is damaged, one of several, an adapter, of an architecture or with a tokenizer that cannot
            be read rightly, without an end token or (if `chat`) a template; or the disk is too small.
    """
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    fields, tensors = _read(file)
    architecture = str(fields["general.architecture"])
    _refuse_what_is_no_whole_model(file, fields, tensors, architecture)
    elements = sum(count for count, _ in tensors.values())
    model.mkdir(parents=True)
    if (free := shutil.disk_usage(model).free) < 4 * elements:
        message = f"{file} takes {4 * elements / 2**30:.1f} GiB in float32, and {free / 2**30:.1f} GiB are free"
        raise StageError(message, f"Make room on the disk of {model}.")
    where = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    try:
        tokenizer = _tokenizer(file, fields)
        config = _config(file, fields)
        network, loading = AutoModelForCausalLM.from_pretrained(
            **where,
            config=config,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
            output_loading_info=True,
        )
    # Its readers take what they need: what is not there is a KeyError, in a tokenizer an AttributeError.
    except (ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise StageError(f"model {file}: transformers cannot read it: {_line(error)}", INSTEAD) from error
    missing = sorted(map(str, [*loading["missing_keys"], *loading["mismatched_keys"]]))
    if missing or network.num_parameters() != elements:
        message = f"model {file}: {elements} values in the file, {network.num_parameters()} in the model"
        raise StageError(message + "".join(f"; {name} does not fit" for name in missing[:1]), INSTEAD)
    if chat:
        _check_template(file, tokenizer)
    tokenizer.model_max_length = network.config.max_position_embeddings
    ends = dict.fromkeys([tokenizer.eos_token_id, fields.get("tokenizer.ggml.eot_token_id", tokenizer.eos_token_id)])
    for settings in (network.config, network.generation_config):
        settings.bos_token_id, settings.pad_token_id = tokenizer.bos_token_id, tokenizer.pad_token_id
        settings.eos_token_id = list(ends) if len(ends) > 1 else tokenizer.eos_token_id
    network.save_pretrained(model)
    tokenizer.save_pretrained(model)
    types = Counter(name for _, name in tensors.values())
    tied = "output.weight" not in tensors
    return {"architecture": architecture, "quantization": dict(sorted(types.items())), "tied": tied}


def config_of(file: Path) -> Any:
    """transformers' config of the model in a GGUF file. Raises StageError where the file is damaged."""
    return _config(file, _read(file)[0])


def _config(file: Path, fields: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
    width = fields.get(f"{fields['general.architecture']}.attention.key_length")
    if width is not None and hasattr(config, "head_dim"):
        config.head_dim = width
    return config


def _read(file: Path) -> tuple[dict[str, Any], dict[str, tuple[int, str]]]:
    """Metadata by key, and by each tensor's name its number of values and its type. Raises `StageError`."""
    from gguf import GGUFReader

    try:
        reader = GGUFReader(file)
        fields = {key: field.contents() for key, field in reader.fields.items()}
        tensors = {tensor.name: (int(tensor.n_elements), tensor.tensor_type.name) for tensor in reader.tensors}
        whole = max((int(tensor.data_offset + tensor.n_bytes) for tensor in reader.tensors), default=0)
    except (OSError, ValueError, IndexError, KeyError, OverflowError, struct.error) as error:
        fix = "Download it again, and compare its size with the original's."
        raise StageError(f"model {file} is no GGUF file, or a damaged one: {_line(error)}", fix) from error
    if not tensors or whole > file.stat().st_size or "general.architecture" not in fields:
        what = "without any weights" if not tensors else "cut off" if whole > file.stat().st_size else "unnamed"
        raise StageError(f"model {file} is {what}", "Download it again, and compare its size with the original's.")
    return fields, tensors


def _refuse_what_is_no_whole_model(
    file: Path, fields: dict[str, Any], tensors: dict[str, tuple[int, str]], architecture: str
) -> None:
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    if fields.get("split.count", 0) > 1:
        message = f"model {file} is part {fields.get('split.no', 0) + 1} of {fields['split.count']} of a sharded GGUF"
        raise StageError(message, "Merge the parts first (`llama-gguf-split --merge`).")
    if (kind := fields.get("general.type", "model")) != "model":
        raise StageError(f"model {file} holds no model but: {kind}", "Name the GGUF of the model itself.")
    known = {name.replace("_", "").replace("-", "") for name in GGUF_SUPPORTED_ARCHITECTURES}
    if architecture.replace("_", "").replace("-", "") not in known:
        names = ", ".join(sorted(GGUF_SUPPORTED_ARCHITECTURES))
        raise StageError(f"model {file}: the architecture {architecture} is none of {names}", INSTEAD)
    scaled = fields.get(f"{architecture}.rope.scaling.type", "none")
    if architecture != "gpt-oss" and (scaled != "none" or "rope_freqs.weight" in tensors):
        message = f"model {file} scales its rotary positions, which transformers leaves out when it reads a GGUF"
        raise StageError(message, INSTEAD)
    if "tokenizer.ggml.tokens" not in fields:
        raise StageError(f"model {file} has no tokenizer", INSTEAD)
    if "tokenizer.ggml.eos_token_id" not in fields:
        raise StageError(f"model {file} names no end token (tokenizer.ggml.eos_token_id)", INSTEAD)


def _tokenizer(file: Path, fields: dict[str, Any]) -> Any:
    """The tokenizer of the metadata. It is of no model's own class, which would set anew how words are cut."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    tokens = fields["tokenizer.ggml.tokens"]
    byte_level = fields.get("tokenizer.ggml.model") == "gpt2"
    if byte_level:
        backend = _byte_level(file, fields)
    else:
        backend = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).backend_tokenizer
    pairs = list(zip(tokens, fields.get("tokenizer.ggml.token_type", [_NORMAL] * len(tokens)), strict=True))
    backend.add_special_tokens([AddedToken(t, normalized=False, special=True) for t, kind in pairs if kind == _CONTROL])
    backend.add_tokens([AddedToken(t, normalized=False, special=False) for t, kind in pairs if kind == _USER_DEFINED])
    special = {}
    for name, key in _IDS.items():
        index = fields.get(f"tokenizer.ggml.{key}_token_id")
        if index is not None and not 0 <= index < len(tokens):
            raise StageError(f"model {file}: its {name} is {index}, of {len(tokens)} tokens", INSTEAD)
        special[name] = None if index is None else tokens[index]
    begin = special["bos_token"] if fields.get("tokenizer.ggml.add_bos_token", not byte_level) else None
    backend.post_processor = processors.Sequence([])
    if begin is not None:
        index = fields["tokenizer.ggml.bos_token_id"]
        backend.post_processor = processors.TemplateProcessing(
            single=[begin, "$A"], pair=[begin, "$A", begin, "$B"], special_tokens=[(begin, index)]
        )
    special["pad_token"] = special["pad_token"] or special["eos_token"]
    template = fields.get("tokenizer.chat_template")
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=template, **special)


def _byte_level(file: Path, fields: dict[str, Any]) -> Tokenizer:
    """Byte-pair encoding of bytes, with text cut into words first in the way that the file names."""
    pre = fields.get("tokenizer.ggml.pre", "default")
    whole_words = pre == "llama-bpe"  # a word that is a token is one, whatever the merges make of it
    digits = {"qwen2": 1, "deepseek-r1-qwen": 1, "llama-bpe": 3}.get(pre)
    if digits is not None:
        words = pre_tokenizers.Split(Regex(_WORDS.format(digits)), "isolated")
        cut = [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    elif pre in ("smollm", "gpt-2", "default"):
        single = [pre_tokenizers.Digits(individual_digits=True)] if pre == "smollm" else []
        cut = [*single, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    else:
        raise StageError(f"model {file}: its tokenizer cuts words as {pre}, which is not known here", INSTEAD)
    vocabulary = {token: index for index, token in enumerate(fields["tokenizer.ggml.tokens"])}
    merges = [tuple(merge.split(" ")) for merge in fields.get("tokenizer.ggml.merges", [])]
    backend = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=whole_words))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Sequence(cut), decoders.ByteLevel()
    if digits == 1:  # Qwen's
        backend.normalizer = normalizers.NFC()
    return backend


def _check_template(file: Path, tokenizer: Any) -> None:
    if not tokenizer.chat_template:
        raise StageError(f"model {file} has no chat template (tokenizer.chat_template)", INSTEAD)
    try:
        tokenizer.apply_chat_template([{"role": "user", "content": "?"}], tokenize=False, add_generation_prompt=True)
    except TemplateError as error:
        raise StageError(f"model {file}: its chat template does not render: {_line(error)}", INSTEAD) from error


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
