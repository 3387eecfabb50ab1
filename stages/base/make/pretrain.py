"""A plain pretraining loop: one document per row, no packing (packed windows made copying fail to emerge)."""

import random
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from stages.base.make.corpus import Document
from stages.base.settings import BaseSettings
from stages.harness.context import Context

IGNORE = -100
POOL = 4
Row = tuple[list[int], list[int]]
"""Token ids and labels of one document, equally long; a label is the token itself or `IGNORE`."""


def model_config(
    settings: BaseSettings, vocab_size: int, eos: int | None = None, pad: int | None = None
) -> Qwen3Config:
    """The architecture of a made model, with the ids of its special tokens."""
    return Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.kv_heads,
        head_dim=settings.head_dim,
        max_position_embeddings=settings.max_position_embeddings,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=eos,
        pad_token_id=pad,
        dtype="float32",
    )


def build_model(settings: BaseSettings, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """An untrained model in float32 with tied embeddings, drawn from torch's current random state."""
    config = model_config(settings, len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id)
    model = Qwen3ForCausalLM(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def tokenize(documents: Sequence[Document], tokenizer: PreTrainedTokenizerFast, max_length: int) -> list[Row]:
    """Tokenize segment by segment and join; rows longer than `max_length` tokens are cut."""
    pieces = [segment for document in documents for segment in document]
    encoded = iter(
        tokenizer([piece.text for piece in pieces], add_special_tokens=False, return_attention_mask=False)["input_ids"]
    )
    rows: list[Row] = []
    for document in documents:
        ids: list[int] = []
        labels: list[int] = []
        for segment in document:
            tokens = next(encoded)
            ids += tokens
            labels += tokens if segment.learn else [IGNORE] * len(tokens)
        rows.append((ids[:max_length], labels[:max_length]))
    return rows


def collate(rows: Sequence[Row], pad: int, device: str) -> tuple[Tensor, Tensor]:
    """Right-padded ids and labels, both [rows, longest]. Causal attention never sees the padding: no mask is needed."""
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in rows], device=device)
    labels = torch.tensor([labels + [IGNORE] * (longest - len(labels)) for _, labels in rows], device=device)
    return ids, labels


def schedule(step: int, settings: BaseSettings) -> float:
    """Factor on the peak rates: linear warm-up, 1 until 70 % of the steps, then linear to 0.05. Steps count from 0."""
    decay_from = 0.7 * settings.steps
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    if step < decay_from:
        return 1.0
    return 1 - 0.95 * (step - decay_from) / (settings.steps - decay_from)


def train(model: Qwen3ForCausalLM, rows: Sequence[Row], ctx: Context[BaseSettings]) -> tuple[float, float]:
    """Train in place. Returns the mean loss of the first and of the last ten steps (of fewer than twenty, of the first
    half and the last), in nats per token."""
    settings = ctx.settings
    optimizers = _optimizers(model, settings)
    model.train()
    losses: list[float] = []
    for step, batch in zip(range(settings.steps), _batches(rows, settings.batch_size, ctx.seed), strict=False):
        ids, labels = collate(batch, model.config.pad_token_id, ctx.machine.device)
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        loss = cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm, error_if_nonfinite=True)
        factor = schedule(step, settings)
        for optimizer, peak in optimizers:
            optimizer.param_groups[0]["lr"] = factor * peak
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        ctx.progress(step + 1, settings.steps, "pretraining", loss=round(losses[-1], 4))
        if (step + 1) % 10 == 0 or step + 1 == settings.steps:
            recent = losses[-10:]
            ctx.curve(step + 1, loss=sum(recent) / len(recent), learning_rate=factor * settings.learning_rate)
    count = max(1, min(10, len(losses) // 2))
    return sum(losses[:count]) / count, sum(losses[-count:]) / count


def accuracy(model: Qwen3ForCausalLM, rows: Sequence[Row], device: str) -> float:
    """Share of the labelled tokens that the model ranks first, each given the right prefix."""
    model.eval()
    right = total = 0
    for start in range(0, len(rows), 64):
        ids, labels = collate(rows[start : start + 64], model.config.pad_token_id, device)
        with torch.no_grad():
            predicted = model(input_ids=ids[:, :-1], use_cache=False).logits.argmax(-1)
        counted = labels[:, 1:] != IGNORE
        right += int((predicted == labels[:, 1:])[counted].sum())
        total += int(counted.sum())
    return right / total


def _optimizers(model: Qwen3ForCausalLM, settings: BaseSettings) -> list[tuple[torch.optim.Optimizer, float]]:
    """Each optimizer with its peak learning rate: Muon for the layers' matrices, AdamW for embeddings and norms.

    With AdamW alone the demo's model needs nearly twice the steps before it copies operands reliably.
    """
    embedding = model.get_input_embeddings().weight
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2 and parameter is not embedding]
    others = [parameter for parameter in model.parameters() if parameter.ndim != 2 or parameter is embedding]
    adamw = torch.optim.AdamW(
        others,
        lr=settings.learning_rate,
        betas=(0.9, settings.adam_beta2),
        weight_decay=settings.weight_decay,
        fused=True,
    )
    muon = torch.optim.Muon(matrices, lr=settings.muon_learning_rate, weight_decay=settings.weight_decay)
    return [(muon, settings.muon_learning_rate), (adamw, settings.learning_rate)]


def _batches(rows: Sequence[Row], size: int, seed: int) -> Iterator[list[Row]]:
    """Endless batches in a new random order each pass; rows are sorted by length among `POOL` of them: less padding."""
    rng = random.Random(seed)
    order: list[int] = []
    while True:
        while len(order) < size * POOL:
            order += rng.sample(range(len(rows)), len(rows))
        pool, order = order[: size * POOL], order[size * POOL :]
        pool.sort(key=lambda index: len(rows[index][0]))
        for start in rng.sample(range(0, size * POOL, size), POOL):
            yield [rows[index] for index in pool[start : start + size]]
