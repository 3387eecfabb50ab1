"""`vcore init` and `vcore config`: what they say of the configs that come with vcore, and what to do with one."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.core.errors import ConfigError


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    if result.exception is not None:
        raise result.exception
    return result.output


def test_what_a_config_is_for_is_told_in_whole_brackets() -> None:
    purposes = json.loads(run("config", "ls", "--json"))["configs"]
    assert purposes["demo"] == "The demo"
    assert purposes["paper/models/maths"].endswith("(arXiv 2510.27462: tables 4, 5 and 7, appendix B)")
    assert all(purpose.count("(") == purpose.count(")") for purpose in purposes.values())


def test_the_help_names_configs_that_there_are() -> None:
    named = re.search(r"such as (\S+) or\s*(\S+);", re.sub(r"[│\s]+", " ", run("init", "--help")))
    assert named is not None
    for name in named.groups():
        assert run("config", "show", name)
    with pytest.raises(ConfigError, match="no shipped config 'none'"):
        run("config", "show", "none")


@pytest.mark.parametrize(
    ("name", "then"),
    [
        ("demo", "vcore plan {file}"),
        ("objectives", "vcore sweep {file} --plan"),
        ("accelerate/fsdp2", "execution.launch: {{sft: {{kind: accelerate, processes: 2, config: {file}}}}}"),
    ],
)
def test_what_a_written_file_is_good_for_follows(name: str, then: str, tmp_path: Path) -> None:
    said = run("init", name, "--out", tmp_path).replace("\n", " ")
    assert then.format(file=tmp_path / f"{name}.yaml") in said
