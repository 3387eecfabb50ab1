"""Make or fetch the base checkpoint, then prove that it loads."""

from typing import Any

import torch
from transformers import PreTrainedTokenizerFast, set_seed

from stages.base.fetch import fetch
from stages.base.gguf import convert
from stages.base.make.corpus import Document, held_out_documents, text_of, train_data_documents, word_problem_documents
from stages.base.make.pretrain import accuracy, build_model, tokenize, train
from stages.base.make.tokenizer import train_tokenizer
from stages.base.settings import MAKE, BaseSettings, gguf_file
from stages.base.verify import verify
from stages.harness.context import Context, Result, StageError

MIN_ACCURACY = 0.97
HELD_OUT = 200


def run(ctx: Context[BaseSettings]) -> Result:
    """Write `model/` and return the proof that it is whole."""
    settings = ctx.settings
    torch.set_num_threads(ctx.machine.threads)
    if settings.source == MAKE:
        proof, metrics = _make(ctx)
    else:
        ctx.progress(0, 1, "fetching the checkpoint")
        proof, metrics = {"source": settings.source, "revision": settings.revision}, {}
        if (file := gguf_file(settings.source)) is not None:
            proof |= convert(file, ctx.output / "model", settings.chat)
        else:
            # The commit that the key has, where the orchestrator has resolved the revision.
            revision = ctx.details.get("commits", {}).get("model", settings.revision)
            fetch(settings.source, revision, ctx.output / "model")
    model, tokenizer = verify(ctx.output / "model", settings.source, settings.chat)
    facts = {"parameters": model.num_parameters(), "vocabulary": len(tokenizer), "model_type": model.config.model_type}
    return Result(proof={**proof, **facts, "reloads": True}, metrics=metrics)


def _make(ctx: Context[BaseSettings]) -> tuple[dict[str, Any], dict[str, Any]]:
    settings = ctx.settings
    set_seed(ctx.seed)
    documents = _documents(ctx)
    tokenizer = train_tokenizer(map(text_of, documents), settings.vocab_size, settings.max_position_embeddings)
    rows = tokenize(documents, tokenizer, settings.max_position_embeddings)
    model = build_model(settings, tokenizer).to(ctx.machine.device)
    first, last = train(model, rows, ctx)
    if not last < first:
        raise StageError(
            f"the made base model did not learn: loss {first:.3f} at first, {last:.3f} at the end",
            "Raise base.steps, or lower base.learning_rate.",
        )
    proof = {"steps": settings.steps, "planned_steps": settings.steps, "first_loss": first, "final_loss": last}
    measured = {}
    if settings.corpus == "word_problems":
        measured["held_out_accuracy"] = _held_out_accuracy(ctx, model, tokenizer)
    model.to("cpu").save_pretrained(ctx.output / "model")
    tokenizer.save_pretrained(ctx.output / "model")
    return proof | measured, {"final_loss": last, "tokens": _tokens_seen(rows, settings), **measured}


def _documents(ctx: Context[BaseSettings]) -> list[Document]:
    settings = ctx.settings
    if settings.corpus == "word_problems":
        return word_problem_documents(settings.steps * settings.batch_size, ctx.seed)
    file = ctx.inputs["data"] / "sft.jsonl"
    documents = list(train_data_documents(file))
    if not documents:
        raise StageError(
            f"{file} holds no rows to train a base model on", "Give data.sft a source with rows, or name a model."
        )
    return documents


def _held_out_accuracy(ctx: Context[BaseSettings], model: Any, tokenizer: PreTrainedTokenizerFast) -> float:
    rows = tokenize(held_out_documents(HELD_OUT, ctx.seed), tokenizer, ctx.settings.max_position_embeddings)
    measured: float = accuracy(model, rows, ctx.machine.device)
    least = MIN_ACCURACY if ctx.settings.min_accuracy is None else ctx.settings.min_accuracy
    if measured < least:
        raise StageError(
            f"the made base model predicts {measured:.1%} of the tokens of held-out worked problems, "
            f"below {least:.1%}: it has not learnt to copy operands, and no later stage will teach it",
            "Raise base.steps, or try another seed; `base.min_accuracy` sets the bound.",
        )
    ctx.note(f"predicts {measured:.2%} of the tokens of held-out worked problems")
    return measured


def _tokens_seen(rows: list[tuple[list[int], list[int]]], settings: BaseSettings) -> int:
    """Tokens of all steps; exact where each row is read once, else the mean times the number of documents."""
    return round(sum(len(ids) for ids, _ in rows) / len(rows) * settings.steps * settings.batch_size)
