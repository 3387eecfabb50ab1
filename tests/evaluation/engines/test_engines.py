"""Both engines on a tiny random model.

They agree, nothing depends on the order of requests, and weights load into a running vLLM.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from evaluation.engines import (
    Engine,
    EngineOptions,
    EngineUnavailable,
    InFlight,
    SamplingRequest,
    open_engine,
    vllm_engine,
)
from evaluation.engines.vllm_internals import SHARED_PROMPT_TOKENS
from tests.evaluation.engines.cases import (
    GREEDY_TOKENS,
    PROMPTS,
    drawn_requests,
    greedy_requests,
    likeliest_requests,
    penalised_requests,
)
from tests.tiny import make_tiny_model, stage_environment


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two checkpoints of one shape; vLLM's CPU attention wants a head of at least 32."""
    folder = tmp_path_factory.mktemp("models")
    return make_tiny_model(folder / "first", hidden_size=128), make_tiny_model(
        folder / "second", seed=1, hidden_size=128
    )


@pytest.fixture(scope="module")
def plain(models: tuple[Path, Path]) -> Iterator[Engine]:
    engine = open_engine("transformers", models[0], EngineOptions("cpu", "float32", threads=1, max_concurrent=64))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def vllm(models: tuple[Path, Path]) -> dict[str, Any]:
    """What `vllm_program` found; one process serves all tests."""
    command = [sys.executable, "-m", "tests.evaluation.engines.vllm_program", *map(str, models)]
    done = subprocess.run(command, env=stage_environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("FOUND "))
    found: dict[str, Any] = json.loads(line.removeprefix("FOUND "))
    return found


def as_json(samples: list[Any]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(sample) for sample in samples]


@pytest.mark.slow
def test_greedy_decoding_is_the_same_in_both_engines(plain: Engine, vllm: dict[str, Any]) -> None:
    assert vllm["name"] == "vllm"
    assert vllm["max_model_len"] == plain.max_model_len == 256
    assert as_json(plain.generate(greedy_requests(plain))) == vllm["greedy"]
    assert all(0 < sample["tokens"] <= GREEDY_TOKENS for sample in vllm["greedy"])


@pytest.mark.slow
def test_penalties_are_the_same_in_both_engines(plain: Engine, vllm: dict[str, Any]) -> None:
    penalised = as_json(plain.generate(penalised_requests(plain)))
    assert penalised == vllm["penalised"] != vllm["greedy"]
    assert vllm["only_the_likeliest"] == vllm["greedy"] == as_json(plain.generate(likeliest_requests(plain)))


def test_a_checkpoints_own_habits_change_nothing(models: tuple[Path, Path], plain: Engine, tmp_path: Path) -> None:
    shutil.copytree(models[0], tmp_path / "model")
    config = tmp_path / "model" / "generation_config.json"
    habits = {
        "do_sample": True,
        "repetition_penalty": 1.7,
        "no_repeat_ngram_size": 2,
        "num_beams": 2,
        "suppress_tokens": [5, 6, 7],
    }
    config.write_text(
        json.dumps(json.loads(config.read_text()) | habits | {"min_new_tokens": 20, "temperature": 0.3, "min_p": 0.5})
    )
    engine = open_engine("transformers", tmp_path / "model", EngineOptions("cpu", "float32", max_concurrent=64))
    for requests in (greedy_requests(plain), drawn_requests(plain)):
        assert engine.generate(requests) == plain.generate(requests)


def test_a_repetition_penalty_is_the_librarys_where_nothing_is_padded(plain: Engine) -> None:
    """And where shorter prompts are padded, it is the same as alone."""
    together = plain.generate(penalised_requests(plain))
    assert together != plain.generate(greedy_requests(plain))
    for request, sampled in zip(penalised_requests(plain), together, strict=True):
        assert plain.generate([request]) == [sampled]
        config = transformers.GenerationConfig(
            max_new_tokens=request.max_new_tokens,
            repetition_penalty=request.repetition_penalty,
            eos_token_id=plain.tokenizer.eos_token_id,
        )
        ids = torch.tensor([request.prompt_token_ids])
        model = plain._model  # type: ignore[attr-defined]
        expected = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)[0, ids.shape[1] :]
        assert sampled.text == plain.tokenizer.decode(expected, skip_special_tokens=True)


def test_min_p_leaves_out_what_is_much_less_likely(plain: Engine) -> None:
    assert plain.generate(likeliest_requests(plain)) == plain.generate(greedy_requests(plain))
    ids, share = greedy_requests(plain)[0].prompt_token_ids, 0.5
    with torch.inference_mode():
        probabilities = torch.softmax(plain._model(torch.tensor([ids])).logits[0, -1] / 0.3, dim=0)  # type: ignore[attr-defined]
    kept = {
        plain.tokenizer.decode([token])
        for token in (probabilities >= share * probabilities.max()).nonzero().flatten().tolist()
    }
    drawn = {s.text for s in plain.generate([SamplingRequest(ids, 1, seed, 0.3, min_p=share) for seed in range(300)])}
    assert drawn <= kept
    assert len(drawn) > 1 or len(kept) == 1


@pytest.mark.slow
def test_vllm_draws_do_not_depend_on_order_or_company(vllm: dict[str, Any]) -> None:
    assert vllm["drawn"] == vllm["drawn_backwards"]
    assert vllm["drawn"][:4] == vllm["drawn_alone"]
    assert len({sample["text"] for sample in vllm["drawn"]}) > len(vllm["drawn"]) // 2  # seeds do differ


@pytest.mark.slow
def test_vllm_computes_a_prompt_once_for_all_its_samples(vllm: dict[str, Any]) -> None:
    whole_blocks = (vllm["prompt"] - 1) // SHARED_PROMPT_TOKENS * SHARED_PROMPT_TOKENS
    assert whole_blocks >= 2 * SHARED_PROMPT_TOKENS
    assert vllm["computed_before"] == [0, whole_blocks, whole_blocks]
    assert vllm["long_prompts"] == vllm["long_prompts_alone"]


@pytest.mark.slow
def test_vllm_hands_samples_over_and_keeps_limits(vllm: dict[str, Any], plain: Engine) -> None:
    assert sorted(vllm["told"]) == list(range(len(PROMPTS)))
    assert vllm["stopped"][0]["finish_reason"] == "stop"
    first, last = vllm["in_flight"]  # when the completion of 8 tokens has ended, and when that of 24 has
    assert (first["running"], last) == (1, {"running": 0, "tokens": 0})
    assert first["tokens"] in (8, 9)
    assert vllm["greedy"][0]["text"].startswith(vllm["stopped"][0]["text"])
    assert len(vllm["stopped"][0]["text"]) <= 5
    assert vllm["fills_the_context"][0]["finish_reason"] == "length"
    prompt = 10 * len(greedy_requests(plain)[0].prompt_token_ids)
    assert vllm["fills_the_context"][0]["tokens"] == 256 - prompt
    assert "no room in a context of 256" in vllm["too_long"]


@pytest.mark.slow
def test_weights_load_into_a_running_vllm_on_a_cpu(models: tuple[Path, Path], vllm: dict[str, Any]) -> None:
    """When this fails, GRPO with vLLM on a CPU does not train what it samples: see `vllm_internals`."""
    changed = open_engine("transformers", models[1], EngineOptions("cpu", "float32"))
    assert vllm["synchronised"] == as_json(changed.generate(greedy_requests(changed)))
    assert vllm["synchronised"] != vllm["greedy"]
    assert vllm["synchronised_bfloat16"] == vllm["changed_bfloat16"]


def test_transformers_draws_do_not_depend_on_order_or_batches(models: tuple[Path, Path], plain: Engine) -> None:
    requests = drawn_requests(plain)
    together = plain.generate(requests)
    assert plain.generate(requests[::-1])[::-1] == together
    small = open_engine("transformers", models[0], EngineOptions("cpu", "float32", max_concurrent=2))
    assert small.generate(requests) == together
    assert plain.generate(requests[:1]) == together[:1]
    assert len({sample.text for sample in together}) > len(together) // 2


def test_transformers_draws_from_the_models_distribution(plain: Engine) -> None:
    """Texts of the first token over many seeds against the softmax of the logits, within five standard errors each."""
    ids, n, temperature = (
        greedy_requests(plain)[0].prompt_token_ids,
        3000,
        0.15,
    )  # so cold that few tokens share most of the mass
    with torch.inference_mode():
        logits = plain._model(torch.tensor([ids])).logits[0, -1]  # type: ignore[attr-defined]
    expected: Counter[str] = Counter()
    for token, probability in enumerate(torch.softmax(logits / temperature, dim=0).tolist()):
        expected[plain.tokenizer.decode([token], skip_special_tokens=True)] += probability
    drawn = Counter(
        sample.text for sample in plain.generate([SamplingRequest(ids, 1, seed, temperature) for seed in range(n)])
    )
    likely = expected.most_common(5)
    assert 0.1 < likely[0][1] < 0.9
    for text, probability in likely:
        assert abs(drawn[text] / n - probability) < 5 * (probability * (1 - probability) / n) ** 0.5


def test_transformers_top_k_of_one_is_greedy(plain: Engine) -> None:
    greedy = greedy_requests(plain)
    narrow = [dataclasses.replace(request, temperature=1.0, top_k=1, seed=3) for request in greedy]
    assert plain.generate(narrow) == plain.generate(greedy)


def test_transformers_tells_what_is_in_flight(plain: Engine) -> None:
    seen: list[InFlight] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.001):
            seen.append(plain.in_flight())

    looking = threading.Thread(target=look)
    looking.start()
    sampled = plain.generate([dataclasses.replace(one, max_new_tokens=100) for one in greedy_requests(plain)])
    over.set()
    looking.join()
    flying = [one for one in seen if one.running]
    assert {one.running for one in flying} == {len(PROMPTS)}
    assert [one.tokens for one in flying] == sorted(one.tokens for one in flying)
    assert 0 < flying[-1].tokens <= sum(one.tokens for one in sampled)
    assert plain.in_flight() == InFlight(0, 0)


def test_transformers_stops_at_a_string_and_at_the_context(plain: Engine) -> None:
    request = greedy_requests(plain)[0]
    (whole,) = plain.generate([request])
    (stopped,) = plain.generate([dataclasses.replace(request, stop=(whole.text[5:7],))])
    assert stopped.finish_reason == "stop"
    assert stopped.tokens < whole.tokens
    assert whole.text.startswith(stopped.text)
    long, short = request.prompt_token_ids * 10, request.prompt_token_ids
    samples = plain.generate([SamplingRequest(long, 10_000), SamplingRequest(short, 10_000)])
    assert [sample.finish_reason for sample in samples] == ["length", "length"]
    assert [sample.tokens for sample in samples] == [256 - len(long), 256 - len(short)]
    with pytest.raises(ValueError, match="no room in a context of 256"):
        plain.generate([SamplingRequest((5,) * 256, 1)])


def test_missing_weights_are_not_made_up(tmp_path: Path, models: tuple[Path, Path]) -> None:
    shutil.copytree(models[0], tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"1 weights are missing.*layers.1.mlp.up_proj"):
        open_engine("transformers", tmp_path / "model", EngineOptions("cpu", "float32"))


@pytest.mark.parametrize("bad", [{"prompt_token_ids": ()}, {"max_new_tokens": 0}, {"temperature": 1.0}])
def test_impossible_requests_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        SamplingRequest(**{"prompt_token_ids": (1,), "max_new_tokens": 1, **bad})


def test_a_missing_vllm_is_named_with_its_extra_and_nothing_else_runs(
    monkeypatch: pytest.MonkeyPatch, models: tuple[Path, Path]
) -> None:
    monkeypatch.setattr(vllm_engine.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EngineUnavailable, match=r"requirements/cpu.txt.*engine: transformers"):
        open_engine("vllm", models[0], EngineOptions("cpu", "float32"))
    with pytest.raises(EngineUnavailable, match=r"requirements/cuda.txt"):
        open_engine("vllm", models[0], EngineOptions("cuda", "bfloat16"))


def test_on_cuda_no_cpu_special_applies() -> None:
    options = EngineOptions("cuda", "bfloat16", gpu_memory_utilization=0.5, tensor_parallel=2)
    assert vllm_engine._device_arguments("unused", options) == {
        "gpu_memory_utilization": 0.5,
        "tensor_parallel_size": 2,
    }
