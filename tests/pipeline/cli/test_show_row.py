"""`vcore plan --show-row`: a demonstration as SFT gets it, before anything trains."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.cli.planning import prompts
from pipeline.core.errors import ConfigError
from stages.sft.settings import SftSettings
from tests.tiny import make_tiny_model, tiny_demonstrations, write_jsonl


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, demonstrations, and a config that trains the one on the other."""
    folder = tmp_path_factory.mktemp("show_row")
    make_tiny_model(folder / "model", positions=1024)
    write_jsonl(folder / "sft.jsonl", [{**row, "weight": 0.5} for row in tiny_demonstrations(3)])
    write_jsonl(folder / "exam.jsonl", [{"prompt": "What is 1 + 1?", "gold": "2"}])
    (folder / "pipeline.yaml").write_text(
        f"name: shown\nseed: 0\nmodel: {folder}/model\nhome: {folder}/home\ngrpo: null\nsft: {{}}\n"
        "generate: {engine: transformers}\n"
        f"benchmarks: [{{name: exam, own: {{file: {folder}/exam.jsonl}}}}]\n"
        f"data: {{sft: [{{file: {folder}/sft.jsonl, columns: {{weight: weight}}}}]}}\n"
    )
    return folder


def command(*arguments: object) -> str:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    if result.exception is not None:
        raise result.exception
    return result.output


def shown(folder: Path, number: int, **settings: Any) -> dict[str, Any]:
    return prompts._shown_row(folder / "sft.jsonl", number, str(folder / "model"), SftSettings(**settings))


def test_a_row_is_shown_with_what_is_supervised(folder: Path) -> None:
    row, demonstration = shown(folder, 2), tiny_demonstrations(3)[1]
    asked, answered = demonstration["prompt"][0]["content"], demonstration["completion"][0]["content"]
    assert (row["id"], row["weight"]) == ("tiny-1", 0.5)
    assert row["text"] == [
        (False, f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n"),
        (True, f"{answered}<|im_end|>\n"),
    ]
    supervised = [token for token, learnt in zip(row["tokens"], row["supervised"], strict=True) if learnt]
    assert "".join(supervised) == row["text"][1][1]
    everything = shown(folder, 2, completion_only_loss=False)
    assert [learnt for learnt, _ in everything["text"]] == [True]
    cut = shown(folder, 2, max_length=len(row["tokens"]) - 4)
    assert cut["tokens_cut"]
    assert cut["token_ids"] == row["token_ids"][:-4]


def test_what_cannot_be_shown_says_why(folder: Path) -> None:
    with pytest.raises(ConfigError, match="--show-row 0: there are the rows 1 to 3"):
        shown(folder, 0)
    with pytest.raises(ConfigError, match="the data has not been made yet") as caught:
        command("plan", folder / "pipeline.yaml", "--show-row", 1)
    assert caught.value.fix == f"vcore run {folder / 'pipeline.yaml'} --until data"
    with pytest.raises(ConfigError, match="no `sft:`"):
        command("plan", folder / "pipeline.yaml", "--show-row", 1, "--set", "sft=null")


@pytest.mark.slow
def test_the_command_prints_it_once_the_data_is_there(folder: Path) -> None:
    command("run", folder / "pipeline.yaml", "--until", "data")
    said = command("plan", folder / "pipeline.yaml", "--show-row", 3)
    assert said.startswith("sft.jsonl:3, ")
    assert "weight 0.5" in said
    answered = tiny_demonstrations(3)[2]["completion"][0]["content"]
    assert f"<|im_start|>assistant\n[[{answered}<|im_end|>\n]]" in said
    row = json.loads(command("plan", folder / "pipeline.yaml", "--show-row", 3, "--json"))
    assert len(row["token_ids"]) == len(row["supervised"])
