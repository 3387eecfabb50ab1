"""The generate stage on a served model: the same records, resumed by sample, and what the server said of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from evaluation.comparison import Measured, compare
from evaluation.engines.base import UNKNOWN
from evaluation.grading import fingerprint
from evaluation.records import Generation, Score, read_records
from stages.generate import run as sample
from stages.generate.settings import GenerateSettings, server_url
from stages.harness.context import StageError
from tests.evaluation.engines.served.server import MODEL, Handler, TestServer, half, serving, times
from tests.stages.generate.conftest import problem
from tests.tiny import open_stage, write_jsonl, write_spec

BENCHMARKS = [
    {"name": "first", "max_new_tokens": 12},
    {"name": "second", "samples": 3, "temperature": 1.0, "max_new_tokens": 30, "system_prompt": "Be brief."},
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in ("first", "second"):
        rows = [problem(name, number, f"question {number}") for number in range(5)]
        write_jsonl(tmp_path / "data" / "benchmarks" / f"{name}.jsonl", rows)
    return tmp_path / "data"


def settings(server: TestServer, **more: Any) -> dict[str, Any]:
    asked = {"model": MODEL, "url": server.url, "patience_s": 5.0, **more}
    return {"engine": "openai", "server": asked, "benchmarks": BENCHMARKS, "max_concurrent": 4}


def run(folder: Path, data: Path, asked: dict[str, Any]) -> Any:
    """The stage's result, and its context."""
    context = open_stage(GenerateSettings, write_spec(folder, "generate", asked, {"data": data}))
    return sample.run(context), context


def test_records_are_those_of_any_engine_with_tokens_cost_and_server_beside_them(data: Path, tmp_path: Path) -> None:
    with serving(TestServer(behaviour=times(3, half))) as server:
        result, context = run(tmp_path / "run", data, settings(server, logprobs=True))
    rows = read_records(context.output / "generations.jsonl", Generation)
    assert [(row.benchmark, row.problem_id, row.sample) for row in rows] == [
        *(("first", f"first-{n}", 0) for n in range(5)),
        *(("second", f"second-{n}", k) for n in range(5) for k in range(3)),
    ]
    assert {(row.completion, row.completion_tokens, row.prompt_tokens) for row in rows} == {("w0 w1 w2 w3 w4 ", 5, 7)}
    assert json.loads(rows[-1].prompt) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "question 4"},
    ]
    assert {row.seed for row in rows if row.benchmark == "first"} == {None}
    assert len({row.seed for row in rows if row.benchmark == "second"}) == 15
    said = json.loads((context.output / "server.json").read_text())
    assert said["model"] == MODEL
    assert (said["kind"], said["version"], said["template_sha256"]) == ("vLLM", "0.31.0", "unknown")
    assert (said["prompt_tokens"], said["completion_tokens"], said["reasoning_tokens"]) == (140, 100, "unknown")
    assert (result.metrics["prompt_tokens"], result.metrics["output_tokens"]) == (140, 100)
    tokens = [json.loads(line) for line in (context.output / "tokens.jsonl").read_text().splitlines()]
    assert len(tokens) == 20
    assert tokens[0] | {"token_ids": [0, 1, 2, 3, 4], "logprobs": [-0.5] * 5} == tokens[0]
    protocol = json.loads((context.output / "summary.json").read_text())["protocol"]["second"]
    expected = {"engine": "openai", "engine_version": "vLLM 0.31.0", "max_model_len": 4096, "dtype": "unknown"}
    assert expected.items() <= protocol.items()
    assert protocol["chat_template_sha256"] == "unknown"
    assert server.url not in json.dumps(protocol)


def test_what_was_drawn_before_a_failure_is_not_asked_for_again(data: Path, tmp_path: Path) -> None:
    def refuse_the_last(handler: Handler, body: dict[str, Any]) -> bool:
        last = "question 4" in json.dumps(body["messages"])
        return last and handler.send_json(400, {"error": {"message": "the disk is full"}})

    with serving(TestServer(behaviour=refuse_the_last)) as server:
        with pytest.raises(StageError, match="the disk is full") as failed:
            run(tmp_path / "run", data, settings(server))
        kept = len((tmp_path / "run" / "state" / "samples.jsonl").read_text().splitlines())
        assert f"{kept} samples are kept" in failed.value.fix
        assert kept > 0
        server.behaviour, before = None, len(server.asked)
        result, context = run(tmp_path / "run", data, settings(server))
        assert len(server.asked) - before == 20 - kept
        assert result.metrics["resumed_samples"] == kept
        assert result.metrics["completion_tokens"] == 100
        server.version = "0.32.0"
        with pytest.raises(StageError, match=r"another one than that of the samples which are kept: version 0\.31\.0"):
            run(tmp_path / "run", data, settings(server))
    assert len(read_records(context.output / "generations.jsonl", Generation)) == 20


def test_a_key_that_is_not_in_the_environment_is_named(data: Path, tmp_path: Path) -> None:
    with serving(TestServer()) as server:
        with pytest.raises(StageError, match="the environment has no NO_SUCH_KEY"):
            run(tmp_path / "run", data, settings(server, api_key_env="NO_SUCH_KEY"))
        assert server.asked == []


def test_a_key_of_the_environment_is_sent_and_stands_in_no_file(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "very-secret-key")
    with serving(TestServer()) as server:
        run(tmp_path / "run", data, settings(server, api_key_env="SOME_KEY"))
        assert {authorization for *_, authorization in server.asked} == {"Bearer very-secret-key"}
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if b"very-secret-key" in path.read_bytes()]


def test_a_comparison_says_what_a_server_did_not() -> None:
    details = {"sampling": {"engine_version": UNKNOWN, "temperature": 0.0}, "scoring": {"version": 3}}
    scores = [Score("first", f"p{n}", 0, "correct", "1", "1") for n in range(4)]
    one = Measured(scores, fingerprint(details), details)
    assert compare("first", "a", "b", one, one).unknown == ("sampling.engine_version",)
    known = {"sampling": {"engine_version": "vLLM 0.31.0"}}
    other = Measured(scores, fingerprint(known), known)
    assert compare("first", "a", "b", other, other).unknown == ()
    assert compare("first", "a", "b", one, other).verdict == "different protocols"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"server": None}, r"needs a section that names the model"),
        ({"engine": "vllm"}, "server: is for the engine openai, not vllm"),
        ({"dtype": "bfloat16"}, "dtype: is for engines that load a checkpoint"),
        ({"tensor_parallel": 2}, "tensor_parallel: is for engines that load a checkpoint"),
        ({"thinking_budget": 100}, "only the engine vllm can end a thought"),
        ({"server": {"model": MODEL, "api_key_env": "sk-abc def"}}, "api_key_env"),
        ({"server": {"model": MODEL, "api_key": "abc"}}, "api_key"),
        ({"benchmarks": [{"name": "first", "from_generation_config": True}]}, "shows no generation_config.json"),
    ],
)
def test_settings_that_a_server_cannot_keep_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        GenerateSettings.model_validate({"engine": "openai", "server": {"model": MODEL}, **changed})


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1"),
        ("http://localhost:8000/v1/", "http://localhost:8000/v1"),
        ("https://host/api/openai/v1", "https://host/api/openai/v1"),
    ],
)
def test_an_address_has_one_form(address: str, url: str) -> None:
    assert server_url(address) == url


NO_ADDRESSES = ["http://exa mple/v1", "http://host:99999/v1", "http://host:port/v1"]


@pytest.mark.parametrize(
    "address", ["http://me:secret@host/v1", "https://host/v1?key=abc", "http:///v1", *NO_ADDRESSES]
)
def test_an_address_that_records_may_not_hold_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"address|names no host|Port"):
        server_url(address)
