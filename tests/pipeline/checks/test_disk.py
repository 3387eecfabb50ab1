"""How much disk a run needs is known before its first stage, from the model's size and what is still to be made."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
from safetensors.numpy import save_file

from pipeline.checks import disk
from pipeline.checks.sizes import parameters
from pipeline.core.errors import ConfigError, StoreError
from pipeline.plan.planning import Planned
from tests.pipeline.helpers import config, make, plan


def needed(folder: Path, *overrides: str) -> int:
    return disk.checkpoint_bytes(config(folder, *overrides), list(plan(folder, *overrides).values()))


def write_gguf(path: Path, shapes: list[tuple[int, ...]]) -> Path:
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "llama")
    writer.add_token_list([f"token {number}" for number in range(300)])
    writer.add_token_types([1] * 300)
    writer.add_float32("llama.rope.freq_base", 1e4)
    writer.add_bool("tokenizer.ggml.add_bos_token", False)
    writer.add_array("names", ["a", "bc", ""])
    for number, shape in enumerate(shapes):
        writer.add_tensor(f"blk.{number}.weight", numpy.zeros(shape, dtype=numpy.float32))
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    return path


def test_the_values_of_a_gguf_file_are_counted_as_its_library_counts_them(tmp_path: Path) -> None:
    from gguf import GGUFReader

    path = write_gguf(tmp_path / "model.gguf", [(64, 32), (7,), (2, 3, 32)])
    assert disk.gguf_values(path) == sum(int(tensor.n_elements) for tensor in GGUFReader(path).tensors) == 2247
    whole = path.read_bytes()
    for damaged in (b"", whole[:20], whole[:3000], b"GGUF" + b"\xff" * 5000):
        path.write_bytes(damaged)
        assert disk.gguf_values(path) == 0, "the base stage says what is wrong with it"


def test_the_values_of_a_checkpoint_are_those_of_its_files(tmp_path: Path) -> None:
    for part, shape in (("1", (30, 4)), ("2", (5,))):
        content = {"weight": numpy.zeros(shape, dtype=numpy.float16), "scale": numpy.zeros(1, dtype=numpy.float32)}
        save_file(content, tmp_path / f"model-{part}.safetensors", metadata={"format": "pt"})
    assert disk.model_parameters(config(tmp_path, f"model={tmp_path}"), []) == 127
    (tmp_path / "model-2.safetensors").write_bytes(b"\xff" * 20)
    assert disk.model_parameters(config(tmp_path, f"model={tmp_path}"), []) == 121


def test_what_is_still_to_be_made_counts_and_the_largest_state_beside_it(tmp_path: Path) -> None:
    size = parameters(config(tmp_path).base)
    every = "sft.checkpoint_steps=1"
    assert needed(tmp_path) == (4 + 4 + 4 + 12) * size, "one state: SFT takes 4 steps and saves each 100th"
    assert needed(tmp_path, every) == (12 + 36) * size, "of 4 states two are kept, and a third until it is whole"
    assert needed(tmp_path, every, "sft.dtype=bfloat16", "grpo.dtype=bfloat16") == (4 + 2 + 2 + 36) * size
    adapters = ["sft.lora={rank: 4}", "grpo.lora={rank: 4}"]
    assert needed(tmp_path, *adapters) == 12 * size, "adapters are small, the merged checkpoint is not"
    make(tmp_path, until="base")
    planned = list(plan(tmp_path).values())
    assert next(one.state for one in planned if one.stage.name == "base") == "HIT"
    base = next(one.artifact for one in planned if one.stage.name == "base")
    assert base is not None
    base.manifest.proof["parameters"] = 10**6
    assert disk.checkpoint_bytes(config(tmp_path), planned) == (4 + 4 + 12) * 10**6


def test_what_an_interrupted_attempt_has_written_is_there_already(tmp_path: Path) -> None:
    make(tmp_path, until="score.base")
    planned: dict[str, Planned] = plan(tmp_path)
    base = planned["base"].artifact
    assert base is not None
    base.manifest.proof["parameters"] = 1000
    before = disk.checkpoint_bytes(config(tmp_path), list(planned.values()))
    state = tmp_path / "home" / "work" / "sft" / str(planned["sft"].key) / "state"
    state.mkdir(parents=True)
    (state / "optimizer.pt").write_bytes(bytes(5000))
    only_sft = [one for one in planned.values() if one.stage.name != "grpo"]
    assert disk.checkpoint_bytes(config(tmp_path), only_sft) == before - 4000 - 5000


def test_a_disk_that_is_too_small_is_said_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_plan = plan(tmp_path).values()
    gib = needed(tmp_path) / 2**30
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=int((2.0 + gib) * 2**30) - 2**20))
    with pytest.raises(StoreError, match=r"2.0 GiB free below .*, 2.0 GiB wanted: 0.0 for checkpoints and 2 to spare"):
        disk.check_disk(config(tmp_path), list(make_plan))
    disk.check_disk(config(tmp_path, "execution.min_free_gib=1.9"), list(make_plan))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    disk.check_disk(config(tmp_path, "execution.min_free_gib=0.0"), list(make_plan))


def test_all_that_a_cpu_cannot_compute_in_is_one_message_with_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.checks import preflight
    from stages.harness import declaration

    monkeypatch.setattr(declaration, "cpu_flags", frozenset)
    stages = [f"{stage}.dtype" for stage in ("generate", "sft", "grpo")]
    overrides = ["execution.device=cpu", *(f"{setting}=bfloat16" for setting in stages)]
    with pytest.raises(ConfigError) as caught:
        preflight.preflight(config(tmp_path, *overrides), list(plan(tmp_path, *overrides).values()))
    assert caught.value.where == ", ".join(stages)
    assert caught.value.fix == f"Use `{' '.join(f'--set {setting}=float32' for setting in stages)}`."
