"""A GGUF file as the base model: what the file says is what the checkpoint holds, or the stage ends before training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.base.gguf import convert
from stages.base.settings import BaseSettings, gguf_file
from stages.base.stage import STAGE
from stages.base.verify import verify
from stages.harness.context import StageError
from stages.harness.declaration import DataPlaces
from tests.tiny import make_tiny_model

pytestmark = pytest.mark.slow

CONTROL, USER_DEFINED, NORMAL = 3, 4, 1
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "model.layers": "blk",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.": "ffn_",
    "_proj": "",
    "post_attention_layernorm": "ffn_norm",
    "input_layernorm": "attn_norm",
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("source"), hidden_size=64)


def write_gguf(
    source: Path, file: Path, change: Callable[[Any], None] = lambda _: None, without: tuple[str, ...] = (), **keys: Any
) -> Path:
    """The checkpoint as a GGUF file: matrices in Q8_0, norms in float32. `keys` replace what is written by name."""
    import gguf
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(source), AutoTokenizer.from_pretrained(source)
    config = model.config
    writer = gguf.GGUFWriter(file, keys.get("architecture", "qwen3"))
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    special = set(tokenizer.all_special_tokens)
    if "tokens" not in without:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(keys.get("pre", "qwen2"))
        writer.add_token_list([token for token, _ in vocabulary])
        writer.add_token_types([CONTROL if token in special else NORMAL for token, _ in vocabulary])
        merges = json.loads((source / "tokenizer.json").read_text())["model"]["merges"]
        writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    if "end" not in without:
        writer.add_eos_token_id(keys.get("end", tokenizer.eos_token_id))
    writer.add_bos_token_id(tokenizer.convert_tokens_to_ids(vocabulary[0][0]))
    writer.add_pad_token_id(tokenizer.pad_token_id)
    if "template" not in without:
        writer.add_chat_template(keys.get("template", tokenizer.chat_template))
    change(writer)
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        for ours, theirs in NAMES.items():
            name = name.replace(ours, theirs)
        values = weight.numpy()
        if values.ndim == 2 and values.shape[1] % 32 == 0:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_weights_template_and_special_tokens_are_those_of_the_file(source: Path, tmp_path: Path) -> None:
    import gguf
    from transformers import AutoModelForCausalLM, AutoTokenizer

    proof = convert(write_gguf(source, tmp_path / "m.gguf"), tmp_path / "model", chat=True)
    assert proof["architecture"] == "qwen3"
    assert set(proof["quantization"]) == {"F32", "Q8_0"}
    assert proof["tied"]
    model, tokenizer = verify(tmp_path / "model", "m.gguf")
    original, own = AutoModelForCausalLM.from_pretrained(source), AutoTokenizer.from_pretrained(source)
    for name, weight in original.state_dict().items():
        values = weight.numpy()
        if values.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            values = gguf.dequantize(gguf.quantize(values, kind), kind)
        assert np.array_equal(model.state_dict()[name].numpy(), values), name
    assert model.config.tie_word_embeddings
    assert (tokenizer.eos_token, tokenizer.pad_token) == (own.eos_token, own.pad_token)
    assert model.generation_config.eos_token_id == own.eos_token_id
    turns = [{"role": "user", "content": "Mia has 3 coins."}, {"role": "assistant", "content": "It's\n  7 \\boxed{7}"}]
    assert tokenizer.apply_chat_template(turns, tokenize=False) == own.apply_chat_template(turns, tokenize=False)
    text = own.apply_chat_template(turns, tokenize=False)
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_every_control_token_is_one_token_also_those_that_the_library_does_not_list(
    source: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    own = AutoTokenizer.from_pretrained(source)
    convert(write_gguf(source, tmp_path / "m.gguf"), tmp_path / "model", chat=True)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    for token in own.all_special_tokens:
        assert tokenizer(f"a{token}b")["input_ids"].count(own.convert_tokens_to_ids(token)) == 1
        assert token not in tokenizer.decode(tokenizer(f"a{token}b")["input_ids"], skip_special_tokens=True)


def test_digits_after_spaces_are_cut_as_the_model_learnt_them(source: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    convert(write_gguf(source, tmp_path / "m.gguf", pre="smollm"), tmp_path / "model", chat=True)
    words = AutoTokenizer.from_pretrained(tmp_path / "model").backend_tokenizer.pre_tokenizer.pre_tokenize_str("a  12")
    assert [word for word, _ in words] == ["a", "ĠĠ", "1", "2"]


def test_an_end_of_turn_of_its_own_ends_a_completion_too(source: Path, tmp_path: Path) -> None:
    from transformers import GenerationConfig

    convert(write_gguf(source, tmp_path / "m.gguf", change=lambda w: w.add_eot_token_id(5)), tmp_path / "model", True)
    ends = GenerationConfig.from_pretrained(tmp_path / "model").eos_token_id
    assert isinstance(ends, list)
    assert 5 in ends


@pytest.mark.parametrize(
    ("words", "keys", "without", "change"),
    [
        ("architecture", {"architecture": "rwkv9"}, (), None),
        ("no tokenizer", {}, ("tokens",), None),
        ("no end token", {}, ("end",), None),
        ("tokens", {"end": 100_000}, (), None),
        ("chat template", {}, ("template",), None),
        ("does not render", {"template": "{% for %}"}, (), None),
        ("cuts words as tekken", {"pre": "tekken"}, (), None),
        ("sharded", {}, (), lambda w: w.add_uint16("split.count", 3)),
        ("adapter", {}, (), lambda w: w.add_type("adapter")),
        ("rotary", {}, (), lambda w: w.add_tensor("rope_freqs.weight", np.ones(8, np.float32))),
        ("values in the file", {}, (), lambda w: w.add_tensor("blk.0.extra.weight", np.ones(8, np.float32))),
    ],
)
def test_what_cannot_be_read_rightly_is_refused_by_name(
    words: str, keys: dict[str, Any], without: tuple[str, ...], change: Any, source: Path, tmp_path: Path
) -> None:
    file = write_gguf(source, tmp_path / "m.gguf", change or (lambda _: None), without, **keys)
    with pytest.raises(StageError, match=words) as error:
        convert(file, tmp_path / "model", chat=True)
    assert str(file) in str(error.value)
    assert error.value.fix


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.5, 0.999])
def test_a_file_that_is_cut_anywhere_is_called_damaged(share: float, source: Path, tmp_path: Path) -> None:
    file = write_gguf(source, tmp_path / "m.gguf")
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(StageError, match=r"damaged|cut off|no GGUF"):
        convert(file, tmp_path / "model", chat=True)
    assert not (tmp_path / "model").exists()


def test_a_folder_stands_for_its_only_gguf_file_and_its_content_is_in_the_key(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    assert gguf_file(str(tmp_path)) == tmp_path / "a.gguf"
    assert STAGE.origins is not None
    [origin] = STAGE.origins(BaseSettings(source=str(tmp_path)), DataPlaces())
    assert origin.path == tmp_path / "a.gguf"
    assert not origin.holds  # a file: its sha256 is the key's
    (tmp_path / "b.gguf").write_bytes(b"GGUF")
    assert gguf_file(str(tmp_path)) is None
