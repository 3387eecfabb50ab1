"""What a method makes of the same few trajectories at the start, in the middle and at the end of training."""

from typing import Any

import torch

from stages.sft.reweighting.base import Method, Window, supervised
from stages.sft.reweighting.evaluation import ModelEvaluator
from stages.sft.row_values import PROMPT_TOKENS
from stages.training import distributed

ROWS = 3
MOST_TOKENS = 400


class Snapshots:
    """Token weights of the training set's first rows at three times; recorded for the report, never trained on.

    `taken` is [{step, rows: [{prompt, tokens, weights, losses}]}], weights relative to uniform (1 is unchanged).
    """

    def __init__(self, dataset: Any, tokenizer: Any) -> None:
        self.dataset = dataset
        self.tokenizer = tokenizer
        self.taken: list[dict[str, Any]] = []

    def due(self, step: int, steps: int) -> bool:
        """Whether `step` of `steps` is the first, the middle or the last one."""
        return step in (0, steps // 2, steps - 1) and step not in {entry["step"] for entry in self.taken}

    def take(self, step: int, method: Method, model: ModelEvaluator) -> None:
        """Ask the method for the rows' weights; one row at a time, so that padding plays no part."""
        rows = []
        for index in range(min(ROWS, len(self.dataset))):
            batch = {name: value.to(model.device) for name, value in model.collate([self.dataset[index]]).items()}
            mask = supervised(batch)
            window = Window([batch], step, int(mask.sum()) * distributed.world_size(), distributed.world_size())
            factors = method.preview(window, model)
            if factors is None:
                return
            rows.append(self._described(batch, mask[0].cpu(), factors[0].cpu(), model.losses(batch)[0].cpu()))
        self.taken.append({"step": step, "rows": rows})

    def _described(self, batch: Any, mask: Any, factors: Any, losses: Any) -> dict[str, Any]:
        """The answer's tokens. Where the prompt has a loss, too, it is shown as text, without its weights."""
        ids = batch["input_ids"][0].cpu()
        if PROMPT_TOKENS in batch:
            of_prompt = torch.arange(len(ids)) < batch[PROMPT_TOKENS][0].cpu()
            mask = mask & ~of_prompt[1:]
        else:
            of_prompt = batch["labels"][0].cpu() == -100
        return {
            "prompt": self.tokenizer.decode(ids[of_prompt], skip_special_tokens=True),
            "tokens": [self.tokenizer.decode([token]) for token in ids[1:][mask].tolist()[:MOST_TOKENS]],
            "weights": [round(value, 4) for value in factors[mask].tolist()[:MOST_TOKENS]],
            "losses": [round(value, 4) for value in losses[mask].tolist()[:MOST_TOKENS]],
        }
