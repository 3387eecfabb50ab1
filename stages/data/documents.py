"""Where the data artifact keeps what it holds."""

from pathlib import Path

from stages.generate.settings import PROMPT_SETS


def problems_path(folder: Path, name: str) -> Path:
    """The file with the problems of a benchmark, or of one of the pipeline's own sets of prompts."""
    return folder / f"{name}.jsonl" if name in PROMPT_SETS else folder / "benchmarks" / f"{name}.jsonl"
