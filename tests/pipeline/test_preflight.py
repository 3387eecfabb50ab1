"""What can be known to be impossible is one line before the first stage starts: sizes, sources, memory, and code of the user's own."""

from pathlib import Path

import pytest

from pipeline.config import load_config
from pipeline.errors import ConfigError
from tests.pipeline.test_plan import CONFIG


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.rl.0.rows=null", r"data.rl.0.rows: word_problems is generated; say how many rows to make"),
        ("data.sft.0.rows=1000000000000", r"data.sft.0.rows: word_problems is generated; .* at most 1,000,000"),
        ("benchmarks.0.problems=1000000000000", r"benchmarks.0.problems: word_problems is generated; .* at most 1,000,000"),
        ("data.sft.0.shuffle=true", r"data.sft.0.shuffle: word_problems is generated, its rows are random"),
        ("data.rl.0={file: x.jsonl, shuffle: true, columns: {answer: a}}", r"data.rl.0.shuffle: draws `rows` of the source at random"),
        ("data.rl.0={file: x.csv, columns: {answer: a}}", r"data.rl.0.file: x.csv is none of .jsonl, .jsonl.gz, .json"),
    ],
)
def test_sources_that_cannot_be(tmp_path: Path, override: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG)
    with pytest.raises(ConfigError, match=message):
        load_config(path, [override])
