"""The rows that SFT trains on, as tokens: each with the evaluation's prompt, and the answer marked as supervised."""

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from evaluation.chat import messages_of, rendered_prompt
from evaluation.records import RecordError, read_rows
from stages.harness.context import StageError
from stages.sft.rendering import LostText, Rendered, render
from stages.sft.row_values import PROMPT_TOKENS, WEIGHT, is_weight
from stages.sft.settings import SftSettings

BATCH = 512
"""Rows that are tokenised at once."""


def read_demonstrations(path: Path) -> list[dict[str, Any]]:
    """The rows of an `sft.jsonl`: `prompt` and `completion`, each a list of messages with `role` and `content`, and
    `weight` where a row has one."""
    try:
        rows = [row for _, row in read_rows(path)] if path.is_file() else []
    except RecordError as error:
        raise StageError(str(error), "Run the data stage again, or correct the file.") from error
    fix = "Check the columns in `data.sft`."
    if not rows:
        raise StageError(f"{path}: no demonstrations to train on", "Check `data.sft` in the config.")
    for number, row in enumerate(rows, start=1):
        for field in ("prompt", "completion"):
            messages = row.get(field)
            if not (isinstance(messages, list) and messages and all(map(_is_message, messages))):
                raise StageError(f"{path}:{number}: {field!r} must be a list of messages with role and content", fix)
        if not is_weight(row.get(WEIGHT, 1)):
            raise StageError(f"{path}:{number}: a weight is a number of at least 0, not {row[WEIGHT]!r:.200}", fix)
    return rows


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(field), str) for field in ("role", "content"))


def encoded(
    rows: Sequence[dict[str, Any]],
    tokenizer: Any,
    settings: SftSettings,
    template: str,
    note: Callable[[str], None],
    asked_with: Mapping[str, dict[str, Any]] | None = None,
) -> Dataset:
    """The rows with `input_ids`, and `completion_mask` that is 1 where a token belongs to the answer. Where any row has
    a weight, all do; where prompts carry a loss, rows have `prompt_tokens` (see `row_values`).

    Args:
        rows: as `read_demonstrations` gives them.
        template: where the chat template is from, for messages.
        asked_with: who will ask the model, and how; see `note_other_prompts`.
        note: told how many answers the template by itself would cut or put after another prompt.

    Raises:
        StageError: rows of which a part would not be trained on, or that evaluation would ask for in another way.
    """
    rendered = rendered_rows(rows, tokenizer, settings, template)
    note_other_prompts(rows, tokenizer, settings, asked_with or {}, note)
    moved = [row for row in rendered if not row.own]
    if moved:
        lost = sum(row.lost for row in moved) / len(moved)
        why = f"leaves out {lost:.0%} of their text" if lost else "puts them after another prompt"
        note(
            f"{len(moved)} of {len(rows)} answers are written after the evaluation's prompt as they are: the chat "
            f"template ({template}) by itself {why}"
        )
    values: dict[str, list[Any]] = {}
    if any(WEIGHT in row for row in rows):
        values[WEIGHT] = [float(row.get(WEIGHT, 1)) for row in rows]
    columns = {"prompt": [row.prompt for row in rendered], "answer": [row.answer for row in rendered]}

    def tokenised(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        tokens: dict[str, list[Any]] = dict(tokens_of(batch["prompt"], batch["answer"], tokenizer))
        if not settings.completion_only_loss:
            tokens[PROMPT_TOKENS] = [mask.count(0) for mask in tokens["completion_mask"]]
        return tokens

    return Dataset.from_dict({**columns, **values}).map(
        tokenised,
        batched=True,
        batch_size=BATCH,
        remove_columns=list(columns),
        new_fingerprint="encoded",  # it lies in memory: there is no cache that this would be looked up in
    )


def rendered_rows(
    rows: Sequence[dict[str, Any]], tokenizer: Any, settings: SftSettings, template: str
) -> list[Rendered]:
    """The rows as text. Raises `StageError`, with how many are concerned, where some cannot be trained on whole."""
    rendered: list[Rendered] = []
    refused: Counter[str] = Counter()
    first: dict[str, tuple[str, LostText]] = {}
    for number, row in enumerate(rows, start=1):
        try:
            *context, last = [{name: text for name, text in turn.items() if text is not None} for turn in row["prompt"]]
            turns = messages_of(last["content"], settings.system_prompt, context=context)
            answer = {name: text for name, text in row["completion"][0].items() if text is not None}
            rendered.append(render(tokenizer, turns, answer, settings.enable_thinking))
        except LostText as error:
            refused[str(error)] += 1
            first.setdefault(str(error), (row.get("id", f"row {number}"), error))
        except ValueError as error:
            fix = "Leave out what the model's chat template does not take (sft.system_prompt), or correct either."
            raise StageError(f"{row.get('id', f'row {number}')}: {error}", fix) from error
    if refused:
        message, count = refused.most_common(1)[0]
        id, example = first[message]
        lost = f"; {example.lost:.0%} of its text would not be trained on" if example.lost else ""
        raise StageError(
            f"the chat template ({template}) {message}: {count} of {len(rows)} rows, the first {id}{lost}", example.fix
        )
    return rendered


def note_other_prompts(
    rows: Sequence[dict[str, Any]],
    tokenizer: Any,
    settings: SftSettings,
    asked_with: Mapping[str, dict[str, Any]],
    note: Callable[[str], None],
) -> None:
    """Say where a question is put to the model in another way than it is learnt.

    Args:
        asked_with: who will ask (evaluation, grpo) -> its `system_prompt` and `enable_thinking`.
    """

    @functools.cache
    def asked(system_prompt: str | None, enable_thinking: bool | None) -> str:
        try:
            return rendered_prompt(tokenizer, messages_of("1 + 1?", system_prompt), enable_thinking)
        except ValueError as error:  # whoever asks so will be told
            return str(error)

    first = [row["prompt"][0] for row in rows]
    learnt = [turn["content"] if turn["role"] == "system" else settings.system_prompt for turn in first]
    for who, options in asked_with.items():
        text = asked(**options)
        other = sum(asked(system, settings.enable_thinking) != text for system in learnt)
        if other:
            said = ", ".join(f"{name} {value!r:.60}" for name, value in options.items())
            note(f"{who} asks with another prompt than {other} of {len(rows)} rows are learnt after: with {said}")


def tokens_of(prompts: Sequence[str], answers: Sequence[str], tokenizer: Any) -> dict[str, list[list[int]]]:
    """Token ids and masks of a batch. The prompt's tokens are those of evaluation, whatever the answer begins with.

    Raises:
        StageError: the tokenizer cannot encode an answer apart from its prompt, and together their tokens merge.
    """
    texts = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
    asked = tokenizer(list(prompts), add_special_tokens=False)["input_ids"]
    whole = tokenizer(texts, add_special_tokens=False)["input_ids"]
    for row, (before, together) in enumerate(zip(asked, whole, strict=True)):
        if together[: len(before)] != before:
            apart = before + tokenizer(answers[row], add_special_tokens=False)["input_ids"]
            if tokenizer.decode(apart) != tokenizer.decode(together):
                raise StageError(
                    f"the end of a prompt and the beginning of its answer are one token: {prompts[row][-20:]!r} and "
                    f"{answers[row][:20]!r}",
                    "Change how these answers begin, or how the chat template ends its prompt.",
                )
            whole[row] = apart
    masks = [[0] * len(before) + [1] * (len(ids) - len(before)) for before, ids in zip(asked, whole, strict=True)]
    return {"input_ids": whole, "completion_mask": masks}


def template_origin(folder: Path, options: dict[str, Any]) -> str:
    """Where the chat template of a run is from."""
    if options.get("chat_template_path"):
        return f"sft.trainer.chat_template_path {options['chat_template_path']}"
    files = ("chat_template.jinja", "chat_template.json")
    return next((name for name in files if (folder / name).is_file()), "tokenizer_config.json")
