"""Plain `transformers` generation as an `Engine`: slower than vLLM on large models, runs wherever torch runs."""

import gc
import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, GenerationConfig, LogitsProcessor, StoppingCriteria

from evaluation.engines.base import (
    EngineOptions,
    InFlight,
    OnDone,
    Sampled,
    SamplingRequest,
    check_room,
    end_token_ids,
    load_tokenizer,
    text_of,
)


class TransformersEngine:
    """A checkpoint loaded with `AutoModelForCausalLM`, sampled in left-padded batches of equal parameters."""

    name = "transformers"

    def __init__(self, model: str, options: EngineOptions) -> None:
        self.version: str = transformers.__version__
        torch.set_num_threads(options.threads)
        self.tokenizer = load_tokenizer(model, chat=False)  # tokens come rendered
        loaded, info = AutoModelForCausalLM.from_pretrained(
            model, dtype=getattr(torch, options.dtype), output_loading_info=True
        )
        if info["missing_keys"]:
            missing = sorted(info["missing_keys"])
            raise ValueError(
                f"{model}: {len(missing)} weights are missing and would be random: {', '.join(missing[:3])}"
            )
        self._model: Any = loaded.to(options.device).eval()
        self._eos_token_ids = end_token_ids(self.tokenizer, self._model.generation_config)
        # `generate` would take what a request leaves open from the checkpoint's own file: penalties, beams, forced
        # tokens. The protocol says how to sample, in every engine; the checkpoint says only what ends a completion.
        self._model.generation_config = GenerationConfig()
        self._device = options.device
        self._watch = _Watch()
        self._max_concurrent = options.max_concurrent
        self.max_model_len: int = options.max_model_len or int(
            self._model.config.get_text_config().max_position_embeddings
        )

    def generate(self, requests: Sequence[SamplingRequest], on_done: OnDone | None = None) -> list[Sampled]:
        """See `Engine.generate`. Requests are grouped by parameters and prompt length, which keeps padding small."""
        check_room(requests, self.max_model_len)
        done: dict[int, Sampled] = {}
        order = sorted(
            range(len(requests)), key=lambda i: (*_parameters(requests[i]), -len(requests[i].prompt_token_ids), i)
        )
        for _, group in itertools.groupby(order, key=lambda i: _parameters(requests[i])):
            while batch := list(itertools.islice(group, self._max_concurrent)):
                for index, sampled in zip(batch, self._sample([requests[i] for i in batch]), strict=True):
                    done[index] = sampled
                    if on_done is not None:
                        on_done(index, sampled)
        return [done[index] for index in range(len(requests))]

    def in_flight(self) -> InFlight:
        """See `Engine.in_flight`. Completions of one batch are handed over together."""
        drawn = self._watch.drawn
        if drawn is None:
            return InFlight(0, 0)
        ended = torch.isin(drawn, torch.tensor(self._eos_token_ids, device=drawn.device)).cumsum(dim=1)
        return InFlight(len(drawn), int((ended == 0).sum()))

    def close(self) -> None:
        """Drop the model and give cached GPU memory back."""
        self._model = None
        gc.collect()
        if self._device == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def _sample(self, batch: list[SamplingRequest]) -> list[Sampled]:
        """Sample one batch whose requests share all parameters but prompt and seed."""
        first, longest = batch[0], max(len(request.prompt_token_ids) for request in batch)
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self._eos_token_ids[0]
        ids = torch.full((len(batch), longest), pad)
        mask = torch.zeros((len(batch), longest), dtype=torch.long)
        for row, request in enumerate(batch):
            start = longest - len(request.prompt_token_ids)
            ids[row, start:] = torch.tensor(request.prompt_token_ids)
            mask[row, start:] = 1
        processors: list[LogitsProcessor] = []
        if first.repetition_penalty != 1:
            starts = [longest - len(request.prompt_token_ids) for request in batch]
            processors.append(_RepetitionPenalty(first.repetition_penalty, starts))
        if first.temperature > 0:
            processors.append(_SeededDraw(batch))
        # Rows with shorter prompts may go on longer than the context allows the longest one; `_finish` cuts each row.
        shortest = min(len(request.prompt_token_ids) for request in batch)
        self._watch.prompt_length = longest
        output = self._model.generate(
            input_ids=ids.to(self._device),
            attention_mask=mask.to(self._device),
            generation_config=GenerationConfig(
                do_sample=False,  # drawing is done row by row in `_SeededDraw`
                max_new_tokens=min(first.max_new_tokens, self.max_model_len - shortest),
                eos_token_id=self._eos_token_ids,
                pad_token_id=pad,
                disable_compile=True,
            ),
            logits_processor=processors,
            stopping_criteria=[
                self._watch,
                *([_StopStrings(self.tokenizer, longest, first.stop)] if first.stop else []),
            ],
        )
        self._watch.drawn = None
        rows = output[:, longest:].tolist()
        return [self._finish(request, row) for request, row in zip(batch, rows, strict=True)]

    def _finish(self, request: SamplingRequest, row: list[int]) -> Sampled:
        room = min(request.max_new_tokens, self.max_model_len - len(request.prompt_token_ids))
        end = next((place for place, token in enumerate(row[:room]) if token in self._eos_token_ids), None)
        if end is not None:
            return Sampled(text_of(self.tokenizer, row[: end + 1], request.stop), end + 1, "stop")
        if request.stop:
            length = _first_stop(self.tokenizer, row[:room], request.stop)
            if length is not None:
                return Sampled(text_of(self.tokenizer, row[:length], request.stop), length, "stop")
        return Sampled(text_of(self.tokenizer, row[:room], ()), len(row[:room]), "length")


class _RepetitionPenalty(LogitsProcessor):  # type: ignore[misc]
    """Makes tokens of the prompt and the completion less likely (Keskar et al., 2019, arXiv:1909.05858), as vLLM does.

    The library's own counts the padding on the left too: it would penalise the end of the turn where that is what pads.
    """

    def __init__(self, penalty: float, starts: list[int]) -> None:
        self._penalty, self._starts = penalty, starts

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores`: (rows, vocabulary) logits."""
        scores = scores.clone()
        for row, start in enumerate(self._starts):
            tokens = input_ids[row, start:].unique()
            logits = scores[row, tokens]
            scores[row, tokens] = torch.where(logits > 0, logits / self._penalty, logits * self._penalty)
        return scores


class _SeededDraw(LogitsProcessor):  # type: ignore[misc]
    """Draws each row's token from its own generator and leaves it as the only candidate for greedy selection.

    Gumbel-max: the argmax of logits plus Gumbel noise is a draw from their softmax. The noise of a row depends on its
    seed and on how many tokens it has, never on its neighbours.
    """

    def __init__(self, batch: list[SamplingRequest]) -> None:
        self._request = batch[0]
        self._generators = [torch.Generator().manual_seed(int(request.seed)) for request in batch]  # type: ignore[arg-type]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores`: (rows, vocabulary) logits; returns the same shape with all but the drawn token at -inf."""
        logits = scores.float() / self._request.temperature
        if self._request.min_p > 0:  # before the others, as in vLLM: what is left changes the mass that top_p counts
            floor = logits.max(dim=1, keepdim=True).values + math.log(self._request.min_p)
            logits = logits.masked_fill(logits < floor, float("-inf"))
        if self._request.top_k > 0:
            logits = transformers.TopKLogitsWarper(self._request.top_k)(input_ids, logits)
        if self._request.top_p < 1:
            logits = transformers.TopPLogitsWarper(self._request.top_p)(input_ids, logits)
        exponential = torch.stack(
            [torch.empty(logits.shape[1]).exponential_(generator=generator) for generator in self._generators]
        )
        noise = -exponential.log().to(logits.device)  # -log(Exp(1)) is Gumbel noise
        drawn = (logits + noise).argmax(dim=1, keepdim=True)
        return torch.full_like(scores, float("-inf")).scatter(1, drawn, 0.0)


class _Watch(StoppingCriteria):  # type: ignore[misc]
    """Ends nothing; `drawn` are the completions' tokens so far, (rows, steps), while a batch is sampled."""

    prompt_length = 0
    drawn: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        self.drawn = input_ids[:, self.prompt_length :]
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


class _StopStrings(StoppingCriteria):  # type: ignore[misc]
    """Ends a row whose completion contains a stop string."""

    def __init__(self, tokenizer: Any, prompt_length: int, stop: Sequence[str]) -> None:
        self._tokenizer, self._prompt_length, self._stop = tokenizer, prompt_length, stop

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        texts = self._tokenizer.batch_decode(input_ids[:, self._prompt_length :], skip_special_tokens=True)
        return torch.tensor([any(string in text for string in self._stop) for text in texts], device=input_ids.device)


def _parameters(request: SamplingRequest) -> tuple[Any, ...]:
    """What all requests of one batch share; in its order the longest completions come first."""
    draw = (request.temperature, request.top_p, request.top_k, request.min_p, request.repetition_penalty)
    return (-request.max_new_tokens, *draw, request.stop)


def _first_stop(tokenizer: Any, row: list[int], stop: Sequence[str]) -> int | None:
    """Number of tokens after which a stop string is complete, or None."""

    def stops(length: int) -> bool:
        text = tokenizer.decode(row[:length], skip_special_tokens=True)
        return any(string in text for string in stop)

    return next(filter(stops, range(1, len(row) + 1)), None) if stops(len(row)) else None
