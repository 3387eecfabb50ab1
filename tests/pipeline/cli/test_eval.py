"""`vcore eval`: the config it makes, what `--show-prompt` prints, and arguments that are wrong."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.cli.eval import eval_config, write_config
from pipeline.cli.planning.prompts import shown_prompts
from pipeline.config.schema import load_config
from pipeline.core.errors import ConfigError
from stages.generate.plan import protocol
from stages.generate.settings import COMPLETION_STOPS
from tests.tiny import make_tiny_model, make_tiny_tokenizer


def run(*arguments: object, command: str = "eval") -> str:
    result = CliRunner().invoke(app, [command, *map(str, arguments)])
    if result.exception is not None:
        raise result.exception
    return result.output


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def test_the_config_has_no_training_and_is_kept(model: Path, tmp_path: Path) -> None:
    asked = [{"name": "word_problems", "problems": 5, "samples": 2, "temperature": 1.0}]
    path = write_config(eval_config(str(model), asked, "transformers", 3, tmp_path, None), tmp_path)
    config = load_config(path)
    assert (config.model, config.seed, config.generate.engine) == (str(model), 3, "transformers")
    assert config.sft is None
    assert config.grpo is None
    assert config.benchmarks[0].samples == 2
    assert path == write_config(eval_config(str(model), asked, "transformers", 3, tmp_path, None), tmp_path)


def test_show_prompt_prints_what_is_sent_in_text_and_tokens(model: Path, tmp_path: Path) -> None:
    arguments = (model, "--benchmarks", "word_problems", "--problems", 3, "--show-prompt", 2, "--home", tmp_path)
    shown = json.loads(run(*arguments, "--json"))
    assert [row["benchmark"] for row in shown] == ["word_problems"] * 2
    assert shown[0]["text"].startswith("<|im_start|>user\n")
    assert shown[0]["text"].endswith("Put the answer in \\boxed{}.<|im_end|>\n<|im_start|>assistant\n")
    assert "".join(shown[0]["tokens"]) == shown[0]["text"]
    said = run(*arguments)
    assert shown[1]["text"] in said
    assert str(shown[1]["token_ids"]) in said
    with_system = run(*arguments, "--set", "generate.system_prompt=Be brief.")
    assert "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user" in with_system
    assert not (tmp_path / "runs").exists()


def test_a_plan_shows_the_prompts_of_its_config_as_of_its_date(model: Path, tmp_path: Path) -> None:
    dated = tmp_path / "model"
    shutil.copytree(model, dated)
    template = dated / "chat_template.jinja"
    template.write_text("{{ strftime_now('%d %b %Y') }} " + template.read_text())
    config = tmp_path / "plan.yaml"
    config.write_text(
        f"name: plan\nseed: 0\nmodel: {dated}\ntemplate_date: 2025-02-03\nbenchmarks:\n"
        "- {name: word_problems, problems: 2}\n"
    )
    shown = json.loads(run(config, "--show-prompt", 1, "--json", command="plan"))
    assert [row["text"][:12] for row in shown] == ["03 Feb 2025 "]
    usual = run(config, "--show-prompt", 1, "--set", "template_date=null", command="plan")
    assert "26 Jul 2024 <|im_start|>user" in usual


@pytest.mark.slow
def test_a_plan_shows_the_prompts_of_a_model_that_the_base_stage_made(tmp_path: Path) -> None:
    config = tmp_path / "plan.yaml"
    config.write_text(
        f"name: plan\nseed: 0\nmodel: make\nhome: {tmp_path / 'home'}\n"
        "base: {steps: 20, warmup_steps: 0, min_accuracy: 0, hidden_size: 32, heads: 2}\n"
        "generate: {engine: transformers}\n"
        "benchmarks:\n- {name: word_problems, problems: 2, max_new_tokens: 64}\n"
    )
    arguments = (config, "--show-prompt", 1, "--json")
    with pytest.raises(ConfigError, match="has yet to be made"):
        run(*arguments, command="plan")
    subprocess.run([sys.executable, "-m", "pipeline", "run", config, "--until", "base"], check=True, timeout=300)
    [shown] = json.loads(run(*arguments, command="plan"))
    assert shown["benchmark"] == "word_problems"
    assert len(shown["token_ids"]) == len(shown["tokens"]) > 10


def test_options_that_print_something_else_instead_exclude_each_other(model: Path, tmp_path: Path) -> None:
    config = tmp_path / "plan.yaml"
    config.write_text(f"name: plan\nseed: 0\nmodel: {model}\nbenchmarks:\n- {{name: word_problems, problems: 2}}\n")
    with pytest.raises(ConfigError, match="--show-prompt and --estimate exclude each other"):
        run(config, "--show-prompt", 1, "--estimate", command="plan")


def test_a_benchmark_may_have_its_own_system_prompt_and_examples(model: Path, tmp_path: Path) -> None:
    benchmark = {
        "name": "word_problems",
        "problems": 2,
        "system_prompt": "Own.",
        "few_shot": [{"question": "1+1?", "answer": "2"}],
    }
    values = eval_config(str(model), [benchmark], "transformers", 0, tmp_path, None)
    values["generate"]["system_prompt"] = "Default."
    config = load_config(write_config(values, tmp_path))
    text = shown_prompts(config, 1, str(model))[0]["text"]
    examples = "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n2<|im_end|>\n<|im_start|>user\n"
    assert text.startswith(f"<|im_start|>system\nOwn.<|im_end|>\n{examples}")
    said = protocol(config.generate, config.benchmarks[0], 2, "", "", make_tiny_tokenizer(), 256, "1")
    assert (said["system_prompt"], said["few_shot"]) == ("Own.", [("1+1?", "2")])
    plain = config.benchmarks[0].model_copy(update={"system_prompt": None, "few_shot": []})
    assert protocol(config.generate, plain, 2, "", "", make_tiny_tokenizer(), 256, "1")["system_prompt"] == "Default."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--benchmarks", "word_problem"),
            "^--benchmarks: .*no benchmark 'word_problem'; did you mean 'word_problems'",
        ),
        (
            ("--benchmarks", "aime24", "--engine", "none"),
            "^--engine: .*Input should be 'vllm', 'transf.* or 'openai'",
        ),
        (("--benchmarks", "aime24", "--engine", "transformers", "--thinking-budget", 8), "^--thinking-budget: .*only"),
        (("--benchmarks", "aime24", "--max-new-tokens", 8, "--thinking-budget", 8), "^--max-new-tokens: .*no room"),
        (("--benchmarks", "aime24", "--set", "template_date=26.7.2024"), "^--set template_date=26.7.2024: "),
        (("--benchmarks", "aime24", "--set", "generate.template_date=2024-07-26"), "write it there"),
        (("--benchmarks", "aime24", "--samples", 4), "^--samples: .*greedy samples of a problem would all be the same"),
        (("--benchmarks", "aime24", "--samples", 0, "--temperature", -1), "^--samples: [^\\n]*\\n--temperature: "),
        (("--benchmarks", "word_problems"), "^--problems: .*is generated; say how many problems"),
        (("--benchmarks", "aime24", "--set", "sft.x=1"), "^--set sft.x=1: "),
        (("--benchmarks", "aime24", "--data", "/nowhere", "--show-prompt", 1), "does not exist"),
    ],
)
def test_wrong_arguments(model: Path, tmp_path: Path, arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(model, *arguments, "--home", tmp_path)


def test_a_model_without_a_chat_template(model: Path, tmp_path: Path) -> None:
    bare = make_tiny_model(tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match="the tokenizer has no chat template"):
        run(bare, "--benchmarks", "word_problems", "--problems", 3, "--show-prompt", 1, "--home", tmp_path)


@pytest.mark.slow
def test_a_base_model_goes_on_with_a_program(tmp_path: Path) -> None:
    """No chat template anywhere: the prompt is the program's beginning, and what is graded is the beginning with its
    continuation."""
    bare = make_tiny_model(tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    row = {"prompt": "Double.", "gold": "def f(x):\n    return 2 * x", "beginning": "def f(x):\n    return 2 * x\n"}
    row["tests"] = {"entry_point": "f", "inputs": [[3]]}  # type: ignore[assignment]
    (tmp_path / "mine.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "eval.yaml").write_text(
        f"name: base\nseed: 0\nmodel: {bare}\nhome: {tmp_path / 'home'}\ngenerate: {{engine: transformers}}\n"
        f"benchmarks:\n- {{name: mine, own: {{file: {tmp_path / 'mine.jsonl'}, kind: code}}, prompt: completion, "
        "max_new_tokens: 16}\n"
    )
    config = load_config(tmp_path / "eval.yaml")
    assert config.benchmarks[0].stop == list(COMPLETION_STOPS)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "run", str(tmp_path / "eval.yaml"), "--json"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    stages = {stage["name"]: Path(stage["folder"]) for stage in json.loads(done.stdout)["stages"]}
    (generation,) = [
        json.loads(line) for line in (stages["generate.base"] / "generations.jsonl").read_text().splitlines()
    ]
    assert generation["prompt"] == row["beginning"]
    (score,) = [json.loads(line) for line in (stages["score.base"] / "scores.jsonl").read_text().splitlines()]
    assert score["extracted"].startswith(row["beginning"])
    with pytest.raises(ConfigError, match="a completion has no conversation"):
        load_config(tmp_path / "eval.yaml", ["benchmarks.0.system_prompt=Be brief."])
