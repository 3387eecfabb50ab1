"""A run's record, as its report.json has it."""

from typing import Any

RESULT = {
    **{
        "checkpoint": "sft",
        "benchmark": "aime24",
        "metric": "accuracy",
        "value": 0.5,
        "low": 0.4,
        "high": 0.6,
        "n": 30,
    },
    **{"split": "test", "protocol": "p", "k": 1},
}
REPORT: dict[str, Any] = {
    "title": "nightly",
    "seed": 3,
    "verdict": "sft is higher than base on aime24.",
    "caveats": ["One seed."],
    "results": [RESULT],
    "stages": [
        {"name": "sft", "key": "key", "digest": "a"},
        {"name": "score.sft", "digest": "b"},
        {"name": "report", "digest": "c"},
    ],
    "versions": {"torch": "1"},
    "git": {"commit": "abc", "dirty": False},
    "config": {"model": "Qwen/Qwen3-0.6B", "sft": {"method": {"name": "vcore"}, "learning_rate": 1e-5}, "grpo": None},
    "outside": {},
}


OUTSIDE = {
    "data.sft.0": {"hub": "someone/dataset", "commit": "a" * 40},
    "data.sft.1": {"sha256": "b" * 64},
    "benchmark aime24": {"hub": "HuggingFaceH4/aime_2024", "commit": "c" * 40},
    "model": {"hub": "Qwen/Qwen3-0.6B", "commit": "d" * 40},
}
