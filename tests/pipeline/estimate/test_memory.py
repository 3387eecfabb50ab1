"""Memory on shapes against memory that is there: parameters, adapters, optimizer state, and what is shared out."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.config.schema import PipelineConfig
from pipeline.core.errors import ConfigError, StageFailed
from pipeline.estimate.footprint import PROGRAM, footprint
from pipeline.estimate.measure import Measured
from pipeline.estimate.memory import ANCHOR_TILE, STEP, Need, estimate
from pipeline.estimate.shape import adapter_parameters, shape_of
from pipeline.estimate.time import ASSUMED_BANDWIDTH, GPUS, sampling_speed
from stages.generate.settings import GenerateSettings
from stages.training.settings import LoraSettings
from tests.pipeline.helpers import config
from tests.tiny import make_tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model") / "model", hidden_size=128, layers=4)


def loaded(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="sdpa")


def test_parameters_and_adapters_are_those_of_the_model(tmp_path: Path, folder: Path) -> None:
    from peft import get_peft_model

    from stages.training.lora import lora_config

    shape = shape_of(config(tmp_path, f"model={folder}"))
    model = loaded(folder)
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    for targets in ("all-linear", ["q_proj", "v_proj"]):
        lora = LoraSettings(rank=4, targets=targets)
        counted = sum(
            p.numel() for p in get_peft_model(loaded(folder), lora_config(lora)).parameters() if p.requires_grad
        )
        assert adapter_parameters(shape, lora) == counted


@pytest.mark.parametrize("family", ["MixtralConfig", "Qwen3MoeConfig"])
def test_adapters_of_experts_are_counted(tmp_path: Path, family: str) -> None:
    """They are most of a mixture's: peft adapts a layer's experts as one parameter, with a rank for each of them."""
    import transformers
    from peft import get_peft_model

    from stages.training.lora import lora_config

    sizes = {"vocab_size": 320, "hidden_size": 32, "intermediate_size": 24, "moe_intermediate_size": 24}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    experts = {"num_local_experts": 8} if family == "MixtralConfig" else {"num_experts": 8}
    described = getattr(transformers, family)(**sizes, **experts)
    described.save_pretrained(tmp_path / "model")
    lora = LoraSettings(rank=4)
    model = transformers.AutoModelForCausalLM.from_config(described)
    adapted = {
        name: parameter.numel()
        for name, parameter in get_peft_model(model, lora_config(lora)).named_parameters()
        if parameter.requires_grad
    }
    shape = shape_of(config(tmp_path, f"model={tmp_path / 'model'}"))
    assert adapter_parameters(shape, lora) == sum(adapted.values())
    assert sum(count for name, count in adapted.items() if ".experts." in name) > sum(adapted.values()) / 2
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters()) - sum(adapted.values())
    with pytest.raises(ConfigError, match="peft refuses this adapter"):
        adapter_parameters(shape, LoraSettings(targets=["no_such_module"]))


PEAKS = {"rest": 100.0 * 2**20, "others": 30.0 * 2**20, "forward": 120.0 * 2**20, "backward": 190.0 * 2**20}
"""Of a step, as if they had been computed; tests/stages/sft/test_footprint.py compares such with real ones."""


def needs(settings: PipelineConfig, asked: list[dict[str, Any]] | None = None) -> list[Need]:
    """The estimate where each step has these peaks; `asked` gets what was to be computed."""

    def measure(program: str, kind: dict[str, Any], size: dict[str, Any]) -> Measured:
        assert program == PROGRAM
        if asked is not None:
            asked.append(kind)
        return Measured({}, dict(PEAKS), peak_gib=0.0)

    return estimate(settings, shape_of(settings), measure)


def test_an_anchors_tile_is_that_of_the_stage() -> None:
    from stages.sft.anchors import divergence

    assert ANCHOR_TILE == divergence.TILE


def test_a_step_is_computed_as_the_settings_say(tmp_path: Path, folder: Path) -> None:
    asked: list[dict[str, Any]] = []
    model = f"model={folder}"
    sft = needs(config(tmp_path, model, "sft.max_length=256", "sft.micro_batch_size=4"), asked)[0]
    assert sft.parts[STEP] == pytest.approx(90 / 1024), "the peak beyond what is there between steps"
    assert "peaks of a step, GiB: forward 0.1, backward 0.2" in sft.notes[1]
    assert asked[0]["method"]["name"] == "vcore"
    assert (asked[0]["rows"], asked[0]["length"], asked[0]["batch_size"], asked[0]["padded"]) == (4, 256, 32, True)
    assert (asked[1]["method"], asked[1]["rows"]) == ({"name": "uniform"}, 128)
    assert asked[1]["scored"] == pytest.approx(0.5), "of a completion with its prompt"
    rows = ("sft.max_tokens_per_micro_batch=1200", "sft.max_tokens_per_micro_batch=200")
    for row in rows:
        needs(config(tmp_path, model, row, "sft.max_length=256", "sft.method={name: iw_sft}"), asked)
    assert [kind["rows"] for kind in asked[2::2]] == [4, 1], "a row that is longer than the budget goes alone"
    assert not asked[4]["padded"]
    assert asked[4]["method"] == {"name": "uniform"}


def test_needs_follow_the_settings(tmp_path: Path, folder: Path) -> None:
    model = f"model={folder}"
    full, lora = (needs(config(tmp_path, model, *more))[0] for more in ((), ("sft.lora={rank: 4}",)))
    assert full.parts["optimizer"] == pytest.approx(2 * full.parts["weights"])
    assert lora.parts["optimizer"] < 0.2 * full.parts["optimizer"]
    stages = {need.stage: need for need in needs(config(tmp_path, model, "grpo.beta=0.1", "grpo.rollout=transformers"))}
    assert "reference model" in stages["grpo"].parts
    assert not stages["grpo"].engine
    plain, anchored, adapted = (
        needs(config(tmp_path, model, f"sft.method={{name: {method}}}", *more))[0].parts
        for method, more in (("dft", ()), ("asft", ()), ("asft", ("sft.lora={rank: 4}",)))
    )
    assert anchored["reference model"] == plain["weights"]
    assert anchored["divergence"] > adapted["divergence"] > 0
    assert not {"reference model", "divergence"} & set(plain) | {"reference model"} & set(adapted)
    vllm = {need.stage: need for need in needs(config(tmp_path, model, "grpo.gpu_memory_utilization=0.4"))}["grpo"]
    assert set(vllm.engine) == {"vLLM's weights", "vLLM's cache of one completion"}
    assert vllm.share == 0.4


def test_what_vllm_takes_for_itself_is_not_there_for_the_trainer() -> None:
    parts, engine = {"weights": 60.0, STEP: 38.0}, {"vLLM's weights": 8.0, "cache": 1.0}
    beside = Need("grpo", parts, engine, share=0.3)
    assert beside.peak(140.0) == pytest.approx(
        100 + 42
    )  # the parts and 2 of slack, and 0.3 of the GPU, more than it needs
    assert beside.smallest_gpu == pytest.approx(100 / 0.7)
    assert beside.peak(beside.smallest_gpu) == pytest.approx(beside.smallest_gpu)
    asleep = Need("grpo", parts, engine, share=0.3, sleeps=True)
    assert asleep.waiting == 62.0  # what a step makes is gone while vLLM is awake
    assert asleep.peak(140.0) == pytest.approx(62 + 42)  # not at once with the training's 100
    assert asleep.smallest_gpu == pytest.approx(100)
    assert Need("generate", {}, {"vLLM's weights": 30.0}, share=0.2).smallest_gpu == pytest.approx(160), (
        "vLLM does not start in less"
    )
    assert math.isinf(Need("grpo", parts, engine, share=1.0).smallest_gpu)


def launched(tmp_path: Path, folder: Path, launch: str, *more: str) -> Need:
    overrides = (f"model={folder}", "grpo.beta=0.1", "grpo.dtype=bfloat16", "grpo.micro_batch_size=4", *more)
    stages = needs(config(tmp_path, *overrides, f"execution.launch={{grpo: {launch}}}"))
    return next(need for need in stages if need.stage == "grpo")


def test_processes_share_what_their_launch_splits(tmp_path: Path, folder: Path) -> None:
    configs = Path(__file__).parents[3] / "configs" / "accelerate"

    def accelerate(name: str) -> dict[str, float]:
        return launched(tmp_path, folder, f"{{kind: accelerate, processes: 4, config: {configs / name}}}").parts

    one = launched(tmp_path, folder, "{kind: local}").parts
    n = one["weights"]  # float32
    for ddp in (accelerate("ddp.yaml"), launched(tmp_path, folder, "{kind: torchrun, processes: 4}").parts):
        assert {name: ddp[name] for name in one} == one, "data parallelism splits nothing"
        assert ddp["DDP's buckets"] == n
    zero2, zero3, fsdp = accelerate("zero2.yaml"), accelerate("zero3.yaml"), accelerate("fsdp2.yaml")
    for split in (zero2, zero3, fsdp):
        assert split["optimizer"] == pytest.approx(one["optimizer"] / 4)
    # DeepSpeed computes with 16-bit weights, whole up to stage 2, and keeps its share of float32 ones.
    assert zero2["weights"] == zero2["reference model"] == pytest.approx(n / 2)
    assert zero3["weights"] == zero3["reference model"] == pytest.approx(n / 8)
    assert zero2["float32 weights of the optimizer"] == pytest.approx(n / 4)
    assert fsdp["weights"] == fsdp["reference model"] == pytest.approx(n / 4)
    assert zero2[STEP] == zero3[STEP] == pytest.approx(30 / 1024), "DeepSpeed's gradients are counted apart"
    assert one[STEP] == fsdp[STEP] == pytest.approx(90 / 1024)
    rows = [
        launched(tmp_path, folder, launch, "grpo.micro_batch_size=null").notes[0]
        for launch in ("{kind: local}", "{kind: slurm, processes: 4}")
    ]
    assert [note.split()[0] for note in rows] == ["128", "32"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("distributed_type: DEEPSPEED\ndeepspeed_config: {deepspeed_config_file: ds.json}", "names no zero_stage"),
        ("distributed_type: MEGATRON_LM", "MEGATRON_LM is not known here"),
    ],
)
def test_a_launch_whose_split_is_not_known_is_no_estimate(
    tmp_path: Path, folder: Path, text: str | None, message: str
) -> None:
    file = tmp_path / "accelerate.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        launched(tmp_path, folder, f"{{kind: accelerate, processes: 2, config: {file}}}")


def test_sampling_is_bound_by_reading_weights_and_caches(tmp_path: Path, folder: Path) -> None:
    shape, gpu = shape_of(config(tmp_path, f"model={folder}")), GPUS["H100"]
    settings = GenerateSettings(dtype="bfloat16", gpu_memory_utilization=0.9)
    alone = sampling_speed(shape, gpu, settings, length=2, most=1)
    whole = ASSUMED_BANDWIDTH * 3.35e12 / (2 * shape.parameters + shape.kv_bytes)
    assert alone == pytest.approx(whole), "the whole model for one token"
    many = sampling_speed(shape, gpu, settings, length=2, most=100)
    assert many == pytest.approx(100 * ASSUMED_BANDWIDTH * 3.35e12 / (2 * shape.parameters + 100 * shape.kv_bytes))
    no_share = GenerateSettings(dtype="bfloat16", gpu_memory_utilization=1e-9)
    assert sampling_speed(shape, gpu, no_share, length=2, most=1) is None
    notes = {
        need.stage: " ".join(need.notes)
        for need in needs(config(tmp_path, f"model={folder}", "benchmarks.0.samples=1"))
    }
    assert "0.0 million new tokens a checkpoint at most" in notes["generate"]
    assert "A rollout of 128 completions" in notes["grpo"]
    assert "all 2 of them" in notes["grpo"]


@pytest.mark.slow
def test_the_command(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.cli.planning import estimate as command_module
    from pipeline.estimate import memory as module

    done: dict[str, Measured] = {}

    def measuring(*arguments: Any) -> Any:
        """Each step is computed once, in a process of its own."""
        measure = real(*arguments)

        def once(program: str, kind: dict[str, Any], size: dict[str, Any]) -> Measured:
            if repr(kind) not in done:
                done[repr(kind)] = measure(program, kind, size)
            return done[repr(kind)]

        return once

    real = command_module.measuring
    monkeypatch.setattr(command_module, "measuring", measuring)

    config(tmp_path)  # writes small.yaml
    command = ["plan", str(tmp_path / "small.yaml"), "--estimate", "--set", f"model={folder}"]
    command += ["--set", "execution.device=cuda"]

    def stages(*more: str) -> dict[str, Any]:
        return {
            stage["stage"]: stage
            for stage in json.loads(CliRunner().invoke(app, [*command, "--json", *more]).stdout)["stages"]
        }

    here = stages()
    assert len(done) == 2, "of SFT and of GRPO"
    assert all(stage["parts"][STEP] > 0 for stage in here.values() if stage["parts"])
    assert list(here) == ["sft", "grpo", "generate"]
    assert {stage["fits"] for stage in here.values()} == {None}
    assert stages("--set", "grpo.gpu_memory_utilization=1.0")["grpo"]["smallest_gpu_gib"] is None
    said = CliRunner().invoke(app, command).output
    assert f"needs a GPU of {math.ceil(here['grpo']['smallest_gpu_gib'])} GiB or more" in said
    # The parts fit into 6 GiB; what vLLM takes of them for itself leaves the trainer 2.4, and it needs 3.3.
    monkeypatch.setattr(module, "gpu_memory_gib", lambda: 6.0)
    grpo = stages("--set", "grpo.gpu_memory_utilization=0.6")["grpo"]
    assert sum(grpo["parts"].values()) + sum(grpo["engine"].values()) + 4 < 6
    assert grpo["fits"] is False
    assert (
        "does not fit on 6 GiB"
        in CliRunner().invoke(app, [*command, "--set", "grpo.gpu_memory_utilization=0.6"]).output
    )
    asleep = CliRunner().invoke(app, [*command, "--set", "grpo.sleep=true"]).output
    assert "while it trains, vLLM asleep" in asleep
    (tmp_path / "empty").mkdir()
    no_model = config(tmp_path, f"model={tmp_path / 'empty'}")
    with pytest.raises(ConfigError, match=r"the config of .* cannot be had"):
        shape_of(no_model)


def test_a_step_that_cannot_be_computed_with_weights_is_computed_as_plain_sft_and_says_so(tmp_path: Path) -> None:
    def measure(program: str, kind: dict[str, Any], size: dict[str, Any]) -> Measured:
        if kind["method"]["name"] != "uniform":
            raise StageFailed("footprint", "meta and cpu")
        return Measured({}, {"rest": 1.0, "others": 2.0, "backward": float(2**30)}, 0.0)

    settings = config(tmp_path).sft
    assert settings is not None
    made = footprint(measure, settings, 2, 64, batch_size=4)
    assert str(made).startswith("backward 1.0; of plain SFT, for the step with token weights cannot be computed")

    def fails(*arguments: Any) -> Measured:
        raise StageFailed("footprint", "no such architecture")

    with pytest.raises(StageFailed, match="no such architecture"):
        footprint(fails, settings, 2, 64, batch_size=4)
