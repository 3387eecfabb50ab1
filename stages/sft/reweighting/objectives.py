"""Objectives of 2026 that weigh a token by what the model's head says of it, beside its probability.

Each is the gradient of its paper's loss: a weight is a constant factor on the token's cross-entropy.
"""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from stages.sft.objective_settings import (
    AsftSettings,
    EaftSettings,
    PriFtSettings,
    ProFitSettings,
    TrimSftSettings,
    WitSettings,
)
from stages.sft.reweighting.base import (
    Anchor,
    Batch,
    Direction,
    Evaluator,
    Method,
    Prepared,
    Window,
    row_digests,
    supervised,
)
from stages.sft.reweighting.baselines import Dft
from stages.sft.row_values import of_prompts
from stages.sft.trl_internals import TOP


class Eaft(Method):
    """Entropy-adaptive fine-tuning (Diao et al. 2026, arXiv 2601.02151): a token's loss times normalised entropy.

    The entropy is that of the `TOP` most likely tokens, renormalised, as in the paper and its authors' code, over
    ln TOP (which the code rounds to 3), to the power alpha.
    """

    signals: ClassVar = frozenset({"top_entropy"})

    def __init__(self, settings: EaftSettings) -> None:
        self.settings = settings

    def weigh(self, losses: Tensor, mask: Tensor, prepared: Prepared) -> Tensor:
        return (prepared["top_entropy"] / math.log(TOP)).pow(self.settings.alpha)


class ProFit(Method):
    """ProFit (Liu et al. 2026, arXiv 2601.09195): tokens with a probability below a threshold have no loss.

    The loss is divided by all supervised tokens, as in the authors' code: what is left is not weighted up.
    """

    def __init__(self, settings: ProFitSettings) -> None:
        self.settings = settings

    def weigh(self, losses: Tensor, mask: Tensor, prepared: Prepared) -> Tensor:
        return (torch.exp(-losses) >= self.settings.threshold).to(losses.dtype)


class Deft(Method):
    """Dynamic entropy fine-tuning (arXiv 2602.11424): the loss (1 - p^a) / a, with a = sum of squared probabilities.

    a, the distribution's concentration, is a constant to the gradient, which is therefore that of the cross-entropy
    times p^a: near 1 where the model is uncertain, near DFT's p where it is sure. Formula of the authors' code.
    """

    signals: ClassVar = frozenset({"concentration"})

    def weigh(self, losses: Tensor, mask: Tensor, prepared: Prepared) -> Tensor:
        return torch.exp(-losses * prepared["concentration"])


class TrimSft(Method):
    """TrimSFT (arXiv 2609.09707): Gaussian weights of the gap between a token's logit and its strongest competitor's.

    exp(-((gap - centre) / width)^2 / 2): tokens that are mastered, and those the model hardly supports, count little.
    The form of the Gaussian is that of an independent implementation, as its paper was not to be had in full.
    """

    signals: ClassVar = frozenset({"logit_gap"})

    def __init__(self, settings: TrimSftSettings) -> None:
        self.settings = settings

    def weigh(self, losses: Tensor, mask: Tensor, prepared: Prepared) -> Tensor:
        distance = (prepared["logit_gap"] - self.settings.centre) / self.settings.width
        return torch.exp(-distance.square() / 2)


class PriFt(Method):
    """PriFT (Wang et al. 2026, arXiv 2606.09396): a token's loss times what the initial model makes of the token.

    PriFT-prob: its probability q(y). PriFT-mass: 1 where q(y) + sum of q(v) over the tokens v with q(v) < q(y) is at
    least a threshold, else 0, as in the authors' code. (Their formula also counts other tokens exactly as likely.)
    These are measured once, over all rows, before the first step; a checkpoint carries them.
    """

    def __init__(self, settings: PriFtSettings) -> None:
        self.settings = settings
        self.start_signals = frozenset({"mass"} if settings.weights == "mass" else ())
        self.reference: dict[str, Tensor] = {}
        """Digest of a row -> losses, or masses, of its supervised tokens under the model that training started from."""

    def prepare(self, window: Window, model: Evaluator) -> list[Prepared]:
        if not self.reference:
            mass = self.settings.weights == "mass"
            self.reference = model.signals_of_all_rows("mass") if mass else model.losses_of_all_rows()
        return [{"reference": self._of_rows(batch)} for batch in window.batches]

    def _of_rows(self, batch: Batch) -> Tensor:
        mask = supervised(batch).cpu()
        values = torch.zeros(mask.shape)
        for row, digest in enumerate(row_digests(batch)):
            if mask[row].any():  # others only fill a batch
                values[row, mask[row]] = self.reference[digest]
        return values

    def weigh(self, losses: Tensor, mask: Tensor, prepared: Prepared) -> Tensor:
        reference = prepared["reference"].to(losses)
        if self.settings.weights == "mass":
            return (reference >= self.settings.threshold).to(losses.dtype)
        return torch.exp(-reference)

    def state(self) -> dict[str, Any]:
        return {"rows": {digest: len(values) for digest, values in self.reference.items()}}

    def restore(self, state: dict[str, Any]) -> None:
        self.reference = {digest: torch.zeros(length) for digest, length in state["rows"].items()}

    def tensors(self) -> Direction:
        return [torch.cat(list(self.reference.values()))] if self.reference else []

    def restore_tensors(self, tensors: Direction) -> None:
        if tensors:
            lengths = [len(values) for values in self.reference.values()]
            self.reference = dict(zip(self.reference, tensors[0].cpu().split(lengths), strict=True))


class Asft(Dft):
    """Anchored SFT (Zhu et al. 2025, arXiv 2509.23753, ICLR 2026): DFT's loss plus lambda * KL of each token.

    sg(p_t) * -log p_t + lambda * D_t, where D_t compares the whole distributions of the model and of the one that
    training started from. Its authors' code has D = KL(start || model), the paper's first version KL(model || start).
    """

    def __init__(self, settings: AsftSettings) -> None:
        self.anchor = Anchor(settings.kl_weight, settings.kl)


class Wit(Method):
    """Weighted instruction tuning (Chatterjee et al. 2025, arXiv 2507.07817): a weight for prompts, one for answers.

    -(lambda_p * sum of the prompt's log-probabilities + lambda_r * sum of the answer's) over the number of tokens whose
    weight is not 0, of all rows of an optimizer step, as in its authors' code. (That counts each row's first token too,
    which nothing predicts.)
    """

    def __init__(self, settings: WitSettings) -> None:
        self.settings = settings

    def prepare(self, window: Window, model: Evaluator) -> list[Prepared]:
        return [{"of_prompt": of_prompts(batch)} for batch in window.batches]

    def weigh(self, losses: Tensor, mask: Tensor, prepared: Prepared) -> Tensor:
        weights = torch.full_like(losses, self.settings.response_weight)
        return weights.masked_fill(prepared["of_prompt"].to(losses.device), self.settings.prompt_weight)
