"""Which recorded curves of a training stage are drawn, in the report of its run and in that of a sweep."""

from typing import NamedTuple

Panel = tuple[str, *tuple[dict[str, str], ...]]
"""Label of the y axis, then series (recorded name -> name in the legend): the first that was recorded is drawn.
Without series, the parts of the reward, which the config names."""


class Curves(NamedTuple):
    """The drawings of one training stage."""

    title: str
    panels: list[Panel]
    compared: dict[str, tuple[str, ...]]
    """In a sweep: label of the y axis -> recorded names, of which the first that a run has is drawn."""


LOSS = "loss, nats per token"
# Before groups of equal reward gave way to others, where that was recorded: what is left afterwards rises by selection.
FIRST_DRAW = ("resampling/reward", "reward")
CURVES: dict[str, Curves] = {
    "base": Curves("Base model, pre-training", [(LOSS, {"loss": "loss"})], {}),
    "sft": Curves(
        "SFT",
        [
            # Methods without weights record one loss.
            (LOSS, {"uniform_loss": "uniform", "weighted_loss": "weighted"}, {"loss": "loss"}),
            ("KL, nats", {"kl": "token weights from uniform"}),
            ("KL, nats per token", {"anchor_kl": "from the start"}),
            ("share", {"ess": "ESS", "top_share": "weight of top 1 %"}),
            ("factor", {"alpha": "alpha"}),
            ("rank correlation", {"rounding_agreement": "two sides", "probe_agreement": "two probes"}),
        ],
        {
            f"uniform {LOSS}": ("uniform_loss", "loss"),
            "KL of weights, nats": ("kl",),
            "KL from the start, nats per token": ("anchor_kl",),
            "effective share of tokens": ("ess",),
            "alpha": ("alpha",),
        },
    ),
    "grpo": Curves(
        "GRPO",
        [
            ("reward", {"reward": "reward", "rewards/correct/mean": "correct", FIRST_DRAW[0]: "reward, first draw"}),
            ("parts of the reward",),
            ("completion length, tokens", {"completions/mean_length": "mean"}),
            ("entropy, nats per token", {"entropy": "policy"}),
            ("KL, nats per token", {"kl": "from the start"}),
            (
                "share clipped",
                {"clip_ratio/low_mean": "low", "clip_ratio/high_mean": "high", "cispo_clip_ratio": "cispo"},
            ),
            (
                "share",
                {
                    "frac_reward_zero_std": "equal-reward groups",
                    "completions/clipped_ratio": "truncated",
                    "resampling/frac_reward_zero_std": "equal-reward, first draw",
                },
            ),
            (
                "seconds a step",
                {f"time/{name}": name for name in ("generate", "train", "grade")} | {"time/sync": "weights to sampler"},
            ),
        ],
        {"reward": FIRST_DRAW, "completion length, tokens": ("completions/mean_length",)},
    ),
}
"""Training stage -> its drawings, in the order of training. Loss, KL and entropy are in nats."""
