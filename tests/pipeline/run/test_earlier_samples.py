"""Which artifacts of the store a sampling stage may take samples from."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.run.earlier_samples import earlier_samples
from pipeline.store.store import Store
from tests.pipeline.helpers import config, make, plan


def found(
    tmp_path: Path, *overrides: str, stage: str = "generate.sft", versions: dict[str, str] | None = None
) -> list[str]:
    """The artifacts that a stage may take samples from, each as the samples a problem of its benchmarks."""
    planned = plan(tmp_path, *overrides)[stage]
    assert planned.key is not None
    assert planned.preimage is not None
    store = Store(config(tmp_path).home_folder)
    earlier = earlier_samples(store, planned.key, planned.preimage, versions or {})
    assert all((store.home / "store" / "generate").samefile(Path(one["folder"]).parent) for one in earlier)
    return [" ".join(f"{b['name']}:{b['samples']}" for b in one["benchmarks"]) for one in earlier]


DRAWN = "benchmarks.0.temperature=1.0"
MORE, MOST = (f"benchmarks.0={{name: word_problems, problems: 20, samples: {k}, temperature: 1.0}}" for k in (4, 8))
BESIDE = "benchmarks=[{name: word_problems, problems: 20, max_new_tokens: 64}, {name: tiny_code, problems: 10}]"


def test_more_samples_and_further_benchmarks_take_what_there_is(tmp_path: Path) -> None:
    make(tmp_path, DRAWN)
    assert found(tmp_path, DRAWN) == []  # that is the artifact itself
    assert found(tmp_path, MORE) == ["word_problems:1"]  # of this checkpoint, and not of base or grpo
    assert found(tmp_path, MORE, versions={"torch": "0.0+other"}) == []  # another build
    make(tmp_path, MORE)
    assert found(tmp_path, MOST) == ["word_problems:4", "word_problems:1"]  # the latest first


def test_a_new_benchmark_changes_the_data_and_draws_no_old_sample_again(tmp_path: Path) -> None:
    make(tmp_path)
    make(tmp_path, BESIDE, until="base")
    assert found(tmp_path, BESIDE, stage="generate.base") == ["word_problems:1"]


@pytest.mark.parametrize("override", ["generate.max_model_len=128", "generate.dtype=bfloat16", "generate.engine=vllm"])
def test_another_way_to_sample_takes_nothing(tmp_path: Path, override: str) -> None:
    make(tmp_path, "generate.engine=transformers")
    assert found(tmp_path, "generate.engine=transformers", MORE) == ["word_problems:1"]
    assert found(tmp_path, "generate.engine=transformers", override, MORE) == []


def test_a_damaged_artifact_is_passed_over(tmp_path: Path) -> None:
    make(tmp_path)
    assert found(tmp_path, MORE) == ["word_problems:1"]
    planned = plan(tmp_path)["generate.sft"]
    assert planned.artifact is not None
    (planned.artifact.folder / "generations.jsonl").unlink()
    assert found(tmp_path, MORE) == []
