"""What can be known to be impossible is one line before the first stage starts: sizes, sources, memory."""

from pathlib import Path

import pytest

from pipeline.checks import sizes
from pipeline.config.schema import load_config
from pipeline.core.errors import ConfigError
from pipeline.plan.decide import Options
from pipeline.run.session import plan_only
from stages.base.settings import BaseSettings
from tests.pipeline.helpers import CONFIG

ON_CPU = "execution.device=cpu"


def planned(folder: Path, *overrides: str) -> None:
    """What `vcore plan` does before it shows anything."""
    path = folder / "c.yaml"
    path.write_text(CONFIG)
    plan_only(path, [f"home={folder / 'home'}", ON_CPU, *overrides], Options())


def refused(folder: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        planned(folder, *overrides)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.rl.0.rows=null", r"data.rl.0.rows: word_problems is generated; say how many rows to make"),
        ("data.sft.0.rows=1000000000000", r"data.sft.0.rows: word_problems is generated; .* at most 1,000,000"),
        (
            "benchmarks.0.problems=1000000000000",
            r"benchmarks.0.problems: word_problems is generated; .* at most 1,000,000",
        ),
        ("data.sft.0.shuffle=true", r"data.sft.0.shuffle: word_problems is generated, its rows are random"),
        (
            "data.rl.0={file: x.jsonl, shuffle: true, columns: {answer: a}}",
            r"data.rl.0.shuffle: draws `rows` of the source at random",
        ),
        ("data.rl.0={file: x.tsv, columns: {answer: a}}", r"data.rl.0.file: x.tsv is none of .jsonl, .jsonl.gz, .json"),
    ],
)
def test_sources_that_cannot_be(tmp_path: Path, override: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG)
    with pytest.raises(ConfigError, match=message):
        load_config(path, [override])


TWO = "{kind: torchrun, processes: 2}"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["grpo.max_model_len=513"], "grpo.max_model_len: 513 is more than the model's 512 positions"),
        (["generate.max_model_len=513"], "generate.max_model_len: 513 is more than the model's 512 positions"),
        (
            ["generate.max_model_len=64"],
            "benchmarks.0.max_new_tokens: 64 new tokens leave no room for a prompt in a max_model_len of 64",
        ),
        (
            ["generate.max_model_len=96", "grpo.max_completion_length=128", "difficulty={samples: 2}"],
            "grpo.max_completion_length: 128 new tokens leave no room for a prompt in a max_model_len of 96",
        ),
        (
            ["sft.batch_size=15", f"execution.launch={{sft: {TWO}}}"],
            "execution.launch.sft.processes: 2 processes cannot share the 15 rows",
        ),
        (
            ["sft.batch_size=16", "sft.micro_batch_size=16", f"execution.launch={{sft: {TWO}}}"],
            "sft.micro_batch_size: 16 does not divide the 8 rows that each of 2 processes has of a step",
        ),
        (
            [
                "grpo={steps: 2, prompts_per_step: 3, num_generations: 3, max_completion_length: 64}",
                f"execution.launch={{grpo: {TWO}}}",
            ],
            "execution.launch.grpo.processes: 2 processes cannot share the 9 completions",
        ),
        (
            [
                "grpo={steps: 2, prompts_per_step: 4, num_generations: 3, micro_batch_size: 4}",
                f"execution.launch={{grpo: {TWO}}}",
            ],
            "grpo.micro_batch_size: 4 does not divide the 6 completions that each of 2 processes has of a step",
        ),
        (
            ["grpo.prompts_per_step=33"],
            "grpo.prompts_per_step: a step of 33 prompts needs more than the 32 rows of data.rl",
        ),
        (["generate.cpu_kv_cache_gib=100000"], "generate.cpu_kv_cache_gib: 100000 GiB are more than this machine's"),
        (["grpo.cpu_kv_cache_gib=100000"], "grpo.cpu_kv_cache_gib: 100000 GiB are more than this machine's"),
        (
            ["generate.cpu_kv_cache_gib=50000", "generate.data_parallel=2"],
            "cpu_kv_cache_gib: 2 engines of 50000 GiB each are more than",
        ),
        (["base.hidden_size=100000", "base.layers=100"], "base: training a model of"),
    ],
)
def test_sizes_that_cannot_be(tmp_path: Path, overrides: list[str], message: str) -> None:
    assert message in refused(tmp_path, *overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["sft.batch_size=16", "sft.micro_batch_size=8", f"execution.launch={{sft: {TWO}, grpo: {TWO}}}"],
        ["grpo.prompts_per_step=32", "grpo.max_model_len=512", "generate.max_model_len=65"],
        [
            "generate={engine: transformers, cpu_kv_cache_gib: 100000}",
            "grpo={steps: 2, rollout: transformers, max_completion_length: 64}",
        ],
    ],
)
def test_sizes_that_can_be(tmp_path: Path, overrides: list[str]) -> None:
    planned(tmp_path, *overrides)


def test_what_compiles_a_model_has_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    message = refused(tmp_path, "generate.cpu_compile=true")
    assert "generate.cpu_compile: compiling a model takes a C++ compiler, and there is no no-such-compiler" in message
    assert "cpu_compile: is for the engine vllm" in refused(
        tmp_path, "generate={engine: transformers, cpu_compile: true}"
    )


def test_parameters_of_a_made_model_are_counted_as_they_are() -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    base = BaseSettings(hidden_size=32, intermediate_size=48, layers=3, heads=4, kv_heads=2, head_dim=8, vocab_size=300)
    made = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=base.vocab_size,
            hidden_size=base.hidden_size,
            intermediate_size=base.intermediate_size,
            num_hidden_layers=base.layers,
            num_attention_heads=base.heads,
            num_key_value_heads=base.kv_heads,
            head_dim=base.head_dim,
            tie_word_embeddings=True,
        )
    )
    assert sizes.parameters(base) == sum(parameter.numel() for parameter in made.parameters())


def test_a_folder_with_several_gguf_files_is_asked_which(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).touch()
    said = refused(tmp_path, f"model={tmp_path}")
    assert "holds no config.json" in said
    assert f"It holds 2 GGUF files: name one, such as {tmp_path / 'a.gguf'}." in said
