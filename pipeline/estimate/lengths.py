"""How long the texts of a pipeline are in tokens: counted where the data stage has made them."""

import dataclasses
import json
from typing import Any

from pipeline.store.store import Artifact

SAMPLED = 64
"""Texts that are tokenised; all are counted."""
CHARACTERS_A_TOKEN = 3.0
"""Where there is no tokenizer yet: of English and arithmetic, common ones need three to four."""
PROMPT_TOKENS = 150.0
"""Of a prompt that is not there yet."""


@dataclasses.dataclass(frozen=True)
class Texts:
    """How many texts there are, and their tokens on average: of the prompt, of the rest, of the longest together."""

    number: int | None
    prompt: float
    completion: float
    longest: float


class Counter:
    """Counts the texts of a data stage's artifact with the tokenizer of a base checkpoint, as far as both are there."""

    def __init__(self, data: Artifact | None, base: Artifact | None) -> None:
        self._data, self._tokenizer = data, None
        if data is not None and base is not None:
            from transformers import AutoTokenizer

            self._tokenizer = AutoTokenizer.from_pretrained(base.folder / "model")

    def texts(self, file: str) -> Texts | None:
        """Of `sft.jsonl`, `rl.jsonl`, `dev.jsonl` or `benchmarks/NAME.jsonl`; None where it is not there yet."""
        path = self._data.folder / file if self._data is not None else None
        if path is None or not path.is_file():
            return None
        lines = path.read_text(encoding="utf-8").splitlines()
        sizes = [self._sizes(json.loads(line)) for line in lines[:: max(1, len(lines) // SAMPLED)]]
        prompts, completions = zip(*sizes, strict=True)
        longest = max(map(sum, sizes))
        return Texts(len(lines), sum(prompts) / len(sizes), sum(completions) / len(sizes), longest)

    def _sizes(self, row: dict[str, Any]) -> tuple[float, float]:
        prompt = row["prompt"]
        messages = prompt if isinstance(prompt, list) else [*row["context"], {"role": "user", "content": prompt}]
        answer = "".join(message["content"] for message in row.get("completion", []))
        tokenizer: Any = self._tokenizer
        if tokenizer is None or not tokenizer.chat_template:
            text = "".join(message["content"] for message in messages)
            return self._tokens(text), self._tokens(answer)
        asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        return len(asked), self._tokens(answer)

    def _tokens(self, text: str) -> float:
        if self._tokenizer is None:
            return len(text) / CHARACTERS_A_TOKEN
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"]) + 1
