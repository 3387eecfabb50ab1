"""`vcore verify`: numbers that come back and numbers that do not, of scores that exist and of a model."""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from evaluation.benchmarks.maths import gsm8k
from evaluation.published.card import Claim
from evaluation.records import Score, write_jsonl
from pipeline.cli.app import app
from pipeline.core.errors import ConfigError
from pipeline.share.verify import examples
from pipeline.store.store import Store
from tests.tiny import make_tiny_model

SPLITS = ("test", "dev")


def run(*arguments: object, command: str = "verify") -> tuple[int, str]:
    """Exit code and output."""
    result = CliRunner().invoke(app, [command, *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def artifact(home: Path, right: int, n: int, *, model: dict[str, Any] | None = None, **sampling: Any) -> Path:
    """The folder of a score artifact of `gsm8k`, with those that it was made of: generations and a checkpoint.

    Args:
        model: proof of the checkpoint.
        sampling: what differs from the usual protocol.
    """
    score, generate, base = (home / "store" / name / "k" for name in ("score", "generate", "base"))
    for folder, inputs in (
        (score, {"generations": {"stage": "generate.base", "key": "k"}}),
        (generate, {"model": {"stage": "base", "key": "k"}}),
        (base, {}),
    ):
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({"inputs": inputs, "proof": model or {}}))
    (base / "model").mkdir()
    (base / "model" / "config.json").write_text(json.dumps({"dtype": "bfloat16"}))
    write_jsonl(score / "scores.jsonl", scores(right, n))
    usual = {"split": "test", "few_shot": [], "temperature": 0.0, "samples": 1, "max_new_tokens": 256}
    protocol = usual | {"engine": "vllm", "dtype": "float32"} | sampling
    entry = {"protocol": "p", "protocol_details": {"sampling": protocol}, "truncated": 7, "verdicts": {}}
    (score / "metrics.json").write_text(json.dumps({"gsm8k": entry}))
    return score


def scores(right: int, n: int, benchmark: str = "gsm8k") -> list[Score]:
    return [Score(benchmark, f"p{i}", 0, "correct" if i < right else "wrong", "1", "1") for i in range(n)]


@pytest.mark.parametrize(
    ("published", "code", "verdict"),
    [("1.4", 0, "REPRODUCED"), ("90", 1, "NOT REPRODUCED"), ("2.4", 3, "UNDECIDABLE AT THIS n")],
)
def test_the_exit_code_is_the_verdict(tmp_path: Path, published: str, code: int, verdict: str) -> None:
    folder = artifact(tmp_path, 18, 1319)
    found, said = run(folder, "--published", published)
    assert found == code, said
    assert f"gsm8k: {verdict} (tolerance: 1 points)" in said
    assert f"published {published} % of 1,319 (--published {published})" in said
    assert "here      1.365 % of 1,319: 0-shot chat prompt, greedy, at most 256 tokens" in said
    if code == 3:
        assert "problems of each would" in said or "problems here would decide" in said
        assert "from --tolerance" in said


def test_what_is_known_of_the_protocols_is_said(tmp_path: Path) -> None:
    proof = {"quantization": {"F32": 61, "Q4_1": 210, "Q8_0": 1}}
    folder = artifact(tmp_path, 18, 1000, model=proof, few_shot=[["1+1?", "2"]], temperature=0.6)
    _, said = run(folder, "--benchmark", "gsm8k", "--published", 1.4, "--few-shot", 5)
    (known,) = [line for line in said.splitlines() if "known to differ" in line]
    for difference in (
        "1000 problems here, 1319 there",
        "1-shot here, 5-shot there",
        "of a GGUF file that has them in Q4_1, Q8_0;",
        "computed in float32 here, the weights are stored in bfloat16",
        "7 of 1000 completions were cut at 256 tokens here",
    ):
        assert difference in known
    assert "temperature 0.6, at most" in said


def test_a_score_of_the_dev_split_is_not_of_the_published_problems(tmp_path: Path) -> None:
    """As many problems are not the same ones: no paired claim is made of them."""
    said = {split: run(artifact(tmp_path / split, 18, 1319, split=split), "--published", 2.4)[1] for split in SPLITS}
    assert "problems of the dev split here" in said["dev"]
    assert "split" not in said["test"]
    assert [split for split in SPLITS if "solved by one of the two runs alone" in said[split]] == ["test"]


def test_weights_copied_from_a_converted_checkpoint_are_known_as_such(tmp_path: Path) -> None:
    converted = (
        artifact(tmp_path / "first", 0, 3, model={"quantization": {"Q4_K": 1}}).parents[1] / "base" / "k" / "model"
    )
    copied = artifact(tmp_path / "second", 18, 1319, model={"source": str(converted)})
    assert "has them in Q4_K" in run(copied, "--published", 1.4)[1]


def test_a_file_that_was_graded_here_is_enough(tmp_path: Path) -> None:
    rows = [
        {"problem_id": f"p{i}", "completion": f"\\boxed{{{i if i % 2 else -1}}}", "gold": i, "sample": sample}
        for i in range(40)
        for sample in range(2)
    ]
    write_jsonl(tmp_path / "mine.jsonl", rows)
    run("maths", tmp_path / "mine.jsonl", "--out", tmp_path / "scores.jsonl", command="score")
    code, said = run(tmp_path / "scores.jsonl", "--published", 90, "--n-published", 40, "--json")
    found = json.loads(said)
    assert (code, found["verdict"]) == (1, "not reproduced")
    (one,) = found["results"]
    assert (one["result"]["measured"], one["result"]["n"], one["result"]["k"]) == (0.5, 40, 2)
    assert one["here"] == "not known, a scores file tells no protocol"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--published: scores have no model card"),
        (("--published", "0.616"), "--published: 0.616 may be a share or per cent"),
        (("--published", "161"), "--published: 161 is not between"),
        (("--published", "61.6", "--benchmark", "humaneval"), "--benchmark: humaneval: .* has gsm8k"),
        (("--published", "61.6", "--tolerance", "0"), "--tolerance: 0 is no tolerance"),
        (("--published", "61.6", "--samples", "4"), "--samples: nothing is sampled"),
        (("--published", "61.6", "--few-shot", "mine.yaml"), "--few-shot: nothing is sampled"),
        (("--published", "61.6", "--temperature", "0"), "--temperature: nothing is sampled"),
        (("--published", "61.6", "--engine", "vllm"), "--engine: nothing is sampled"),
        (("--published", "61.6", "--set", "generate.dtype=float32"), "--set: nothing is sampled"),
    ],
)
def test_wrong_arguments_about_scores(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    folder = artifact(tmp_path, 18, 1319)
    with pytest.raises(ConfigError, match=message):
        run(folder, *arguments)


def test_a_word_that_means_nothing_is_told_what_it_could_have_meant(tmp_path: Path) -> None:
    kinds = r"nosuch is no checkpoint folder, \.gguf file, hub id \(OWNER/NAME\), scores file, key or run"
    arguments = ("nosuch", "--published", 50, "--home", tmp_path / "home")
    with pytest.raises(ConfigError, match=f"{kinds}; and there is no store in .*home"):
        run(*arguments)
    Store(tmp_path / "home")
    with pytest.raises(ConfigError, match=f"{kinds} of .*home"):
        run(*arguments)


def test_several_benchmarks_or_one_without_a_size_need_a_word_more(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "scores.jsonl", [*scores(1, 9), *scores(1, 9, "word_problems")])
    with pytest.raises(ConfigError, match=r"--benchmark: which one\?: .* has gsm8k, word_problems"):
        run(tmp_path / "scores.jsonl", "--published", 50)
    with pytest.raises(ConfigError, match="--n-published: word_problems has no size"):
        run(tmp_path / "scores.jsonl", "--published", 50, "--benchmark", "word_problems")


def test_an_example_that_is_none_is_found_before_anything_runs(tmp_path: Path) -> None:
    file = tmp_path / "examples.yaml"
    file.write_text("- question: 1+1?\n  answer: 2\n")
    (tmp_path / "config.json").write_text("{}")
    asked = ("--benchmark", "word_problems", "--published", 50, "--n-published", 9, "--few-shot", file)
    with pytest.raises(ConfigError, match=r"^--few-shot: .*answer: Input should be a valid string"):
        run(tmp_path, *asked, "--home", tmp_path / "home")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "has no model card"),
        (("--benchmark", "gsm8"), "--benchmark: unknown benchmark 'gsm8'; did you mean 'gsm8k'"),
        (("--published", "50"), "--published: 50 of which benchmark"),
        (("--benchmark", "math500", "--published", "50", "--few-shot", "4"), "no training problems to take examples"),
        (("--benchmark", "gsm8k", "--published", "50", "--few-shot", "none.yaml"), "neither a number nor a file"),
        (("--benchmark", "gsm8k", "--published", "50", "--prompt", "chatty"), "--prompt: .*'chat' or 'completion'"),
        (("--benchmark", "gsm8k", "--published", "50", "--samples", "4"), "--samples: .*would all be the same"),
    ],
)
def test_wrong_arguments_about_a_model(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=message):
        run(tmp_path / "model", *arguments, "--home", tmp_path / "home")


def test_a_card_without_a_number_that_can_be_checked_lists_what_it_has(tmp_path: Path) -> None:
    row = "{task: {type: t}, dataset: {type: cais/mmlu, name: MMLU}, metrics: [{type: acc, value: 25}]}"
    (tmp_path / "README.md").write_text(f"---\nmodel-index: [{{name: m, results: [{row}]}}]\n---\n")
    with pytest.raises(ConfigError, match="no number that can be checked:\n  MMLU: acc 25: this data set is no"):
        run(tmp_path)


def test_examples_are_the_first_training_problems_or_those_of_a_file(tmp_path: Path) -> None:
    claim = Claim("word_problems", 0.5, "", few_shot=3)
    taken = examples(claim, None, None)
    assert len(taken) == 3
    assert "\\boxed{" in taken[0]["answer"]
    assert examples(claim, "2", None) == taken[:2]
    assert examples(claim, "0", None) == []
    assert examples(Claim("math500", 0.5, "", few_shot=4), None, None) == []
    file = tmp_path / "examples.yaml"
    file.write_text("- question: 1+1?\n  answer: '2'\n")
    assert examples(claim, str(file), None) == [{"question": "1+1?", "answer": "2"}]
    for text in ("question: 1+1?", "- question: 1+1?", "- 1+1?", "- ["):
        file.write_text(text)
        with pytest.raises(ConfigError, match="--few-shot"):
            examples(claim, str(file), None)


def test_more_examples_than_there_are_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gsm8k, "SIZES", {"train": 2, "test": 1})
    (tmp_path / "gsm8k").mkdir()
    with gzip.open(tmp_path / "gsm8k" / "train.jsonl.gz", "wt") as file:
        file.write('{"question": "1+1?", "answer": "Add.\\n#### 2"}\n' * 2)
    claim = Claim("gsm8k", 0.5, "")
    assert len(examples(claim, "2", tmp_path)) == 2
    with pytest.raises(ConfigError, match="--few-shot: gsm8k has 2 training problems, 10,000 are asked for"):
        examples(claim, "10000", tmp_path)


@pytest.mark.slow
def test_a_model_is_run_by_its_card(tmp_path: Path) -> None:
    """A random model whose card claims 90 %, with one worked example: it is sampled, graded and refuted."""
    model = make_tiny_model(tmp_path / "model", positions=512)
    dataset = "{type: word_problems, name: word_problems (1-shot)}"
    metrics = "[{type: accuracy, name: 'accuracy [80, 95], n=12, protocol 0', value: 90.0}]"
    row = f"{{task: {{type: t}}, dataset: {dataset}, metrics: {metrics}}}"
    (model / "README.md").write_text(f"---\nmodel-index: [{{name: m, results: [{row}]}}]\n---\n")
    command = [sys.executable, "-m", "pipeline", "verify", str(model), "--home", str(tmp_path / "home")]
    options = ["--engine", "transformers", "--max-new-tokens", "8", "--json"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=600)
    assert done.returncode == 1, done.stderr
    assert "checking word_problems: 90 % of 12" in done.stderr
    (one,) = json.loads(done.stdout)["results"]
    assert (one["result"]["measured"], one["result"]["n"]) == (0.0, 12)
    assert "1-shot chat prompt, greedy, at most 8 tokens, transformers in float32" in one["here"]
