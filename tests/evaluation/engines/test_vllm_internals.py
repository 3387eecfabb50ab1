"""Canaries: the names inside vLLM that `vllm_internals` relies on. One process imports vLLM and says what it has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from evaluation.engines import vllm_internals

PROGRAM = """
import inspect, json
from types import SimpleNamespace
from evaluation.engines import EngineUnavailable, vllm_internals
vllm_internals.prepare_environment(1)
import torch, vllm
from vllm.model_executor.layers import linear, utils
from vllm.model_executor.layers import vocab_parallel_embedding as embedding
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.detokenizer import IncrementalDetokenizer
from vllm.v1.engine.output_processor import OutputProcessor
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend
facts = {
    "environment": [name for name in vllm_internals.ENVIRONMENT if name in vllm.envs.environment_variables],
    "layers_ask": ["import dispatch_cpu_unquantized_gemm" in inspect.getsource(m) for m in (linear, embedding)],
    "arguments": list(inspect.signature(utils.dispatch_cpu_unquantized_gemm).parameters),
    "llm_engine": "self.llm_engine = LLMEngine" in inspect.getsource(vllm.LLM.__init__),
    "engine_has": [n for n in ("add_request", "has_unfinished_requests", "step") if hasattr(vllm.LLMEngine, n)],
    "add_request": list(inspect.signature(vllm.LLMEngine.add_request).parameters)[1:4],
    "model_config": "self.model_config = " in inspect.getsource(vllm.LLMEngine.__init__),
    "thinking": vllm_internals.thinking_between("<a>", "</a>").reasoning_end_str,
    "budget": "thinking_token_budget" in inspect.signature(vllm.SamplingParams.from_optional).parameters,
    "final_only": hasattr(RequestOutputKind, "FINAL_ONLY"),
    "output_processor": "self.output_processor = OutputProcessor(" in inspect.getsource(vllm.LLMEngine.__init__),
    "states": "self.request_states: dict" in inspect.getsource(OutputProcessor.__init__),
    "tokens": IncrementalDetokenizer().num_output_tokens(),
    "head_sizes": list(CPUAttentionBackend.get_supported_head_sizes()),
}
vllm_internals.draw_one_number_a_token()
from vllm.v1.sample.ops import topk_topp_sampler as ops_of_the_sampler
sampler = SimpleNamespace(logprobs_mode="raw_logprobs", use_fp64_gumbel=False)
logits = torch.tensor([0.5, 0.0, 0.3, 0.2]).log().repeat(4000, 1)
forward = ops_of_the_sampler.TopKTopPSampler.forward_cpu
generators = [{row: torch.Generator().manual_seed(abs(row - other)) for row in range(4000)} for other in (0, 3999)]
facts["drawn"] = [forward(sampler, logits, of_rows, None, None)[0].tolist() for of_rows in generators]
del ops_of_the_sampler.sample_with_exponential_noise
try:
    vllm_internals.draw_one_number_a_token()
except EngineUnavailable as error:
    facts["without_function"] = str(error)
vllm_internals.keep_weights_loadable()
layer = torch.nn.Linear(32, 16, bias=False, dtype=torch.bfloat16)
utils.dispatch_cpu_unquantized_gemm(layer, remove_weight=True)
facts["kept"] = [list(layer.weight.shape), layer.cpu_linear is torch.nn.functional.linear]
del utils.dispatch_cpu_unquantized_gemm
try:
    vllm_internals.keep_weights_loadable()
except EngineUnavailable as error:
    facts["without"] = str(error)
print("FACTS " + json.dumps(facts))
"""
MOVED = "this vLLM is built otherwise: see evaluation/engines/vllm_internals.py for what relies on it"


@pytest.fixture(scope="module")
def installed() -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if name not in vllm_internals.ENVIRONMENT}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{MOVED}\n{done.stderr[-3000:]}"
    line = next(line for line in done.stdout.splitlines() if line.startswith("FACTS "))
    facts: dict[str, Any] = json.loads(line.removeprefix("FACTS "))
    return facts


@pytest.mark.slow
def test_linear_layers_keep_the_weights_that_are_loaded(installed: dict[str, Any]) -> None:
    assert installed["layers_ask"] == [True, True], f"linear layers choose their kernel elsewhere; {MOVED}"
    assert installed["arguments"] == ["layer", "remove_weight"], MOVED
    assert installed["kept"] == [[16, 32], True]
    assert "has no vllm.model_executor.layers.utils.dispatch_cpu_unquantized_gemm" in installed["without"]


@pytest.mark.slow
def test_the_engine_of_an_llm_can_be_stepped(installed: dict[str, Any]) -> None:
    assert installed["llm_engine"], f"vllm.LLM has no llm_engine; {MOVED}"
    assert installed["model_config"], f"LLM.llm_engine has no model_config; {MOVED}"
    assert installed["engine_has"] == ["add_request", "has_unfinished_requests", "step"], MOVED
    assert installed["add_request"] == ["request_id", "prompt", "params"], MOVED


@pytest.mark.slow
def test_the_output_of_a_request_can_be_asked_for_at_its_end_alone(installed: dict[str, Any]) -> None:
    assert installed["final_only"], f"vllm.sampling_params.RequestOutputKind has no FINAL_ONLY; {MOVED}"


@pytest.mark.slow
def test_the_tokens_of_unfinished_requests_can_be_counted(installed: dict[str, Any]) -> None:
    assert installed["output_processor"], f"vllm.LLMEngine has no output_processor; {MOVED}"
    assert installed["states"], f"vllm.v1.engine.output_processor has no request_states; {MOVED}"
    assert installed["tokens"] == 0, f"vllm.v1.engine.detokenizer counts no tokens; {MOVED}"


@pytest.mark.slow
def test_a_token_is_drawn_from_one_number_of_its_request(installed: dict[str, Any]) -> None:
    drawn, backwards = installed["drawn"]
    assert drawn == backwards[::-1], "the draw depends on the request's seed alone"
    shares = [drawn.count(token) / len(drawn) for token in range(4)]
    assert shares[1] == 0, "a token without probability was drawn"
    for share, expected in zip(shares, (0.5, 0.0, 0.3, 0.2), strict=True):  # four standard errors
        assert abs(share - expected) <= 4 * (expected * (1 - expected) / len(drawn)) ** 0.5, MOVED
    assert "no sample_with_exponential_noise any more" in installed["without_function"]


def test_a_request_may_have_a_thinking_budget(installed: dict[str, Any]) -> None:
    assert installed["thinking"] == "</a>", f"vllm.config.reasoning.ReasoningConfig is another; {MOVED}"
    assert installed["budget"], f"vllm.SamplingParams has no thinking_token_budget; {MOVED}"


@pytest.mark.slow
def test_head_sizes_are_those_of_the_cpu_kernels(installed: dict[str, Any]) -> None:
    assert tuple(installed["head_sizes"]) == vllm_internals.HEAD_SIZES, MOVED


@pytest.mark.slow
def test_the_environment_is_one_that_vllm_reads(installed: dict[str, Any]) -> None:
    assert {*installed["environment"], "TORCH_COMPILE_DISABLE"} == vllm_internals.ENVIRONMENT.keys(), MOVED


def test_the_cpu_environment_must_precede_the_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", json)  # any module: what counts is that the name is taken
    for name, value in vllm_internals.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    vllm_internals.prepare_environment(threads=2)  # all set: nothing to complain about
    monkeypatch.delenv("TORCH_COMPILE_DISABLE")
    with pytest.raises(RuntimeError, match="TORCH_COMPILE_DISABLE"):
        vllm_internals.prepare_environment(threads=2)
