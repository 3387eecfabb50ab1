"""Ten checks of what only a GPU can show, in about ten minutes: `python tools/gpu_check.py OUT [--tiny]`.

Each check prints one line of JSON, also into OUT/checks.jsonl, and its failure ends no other. It needs torch with CUDA,
transformers, accelerate, peft, trl, datasets and this checkout; where vLLM is installed, the last check samples with it
too. `--tiny` runs all of it with tiny sizes on a CPU, which shows that the script works and nothing else. docs/gpu.md
says what each line means.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or cuBLAS is not deterministic: read once, at its start

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

MOST_S = 540.0
"""After which no further check is begun."""
SHAPES: dict[str, dict[str, int]] = {
    "0.6B": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16},
    "4B": {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32},
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
}
EXPECTED_GIB = {"full 0.6B uniform": 11.1, "full 0.6B vcore": 14.5, "lora 4B vcore": 15.6}
"""Peaks of these steps with fake tensors on a CPU, without the context and the allocator's slack."""


class Checks:
    """The checks, which share the device, the sizes and the folder that they write to."""

    def __init__(self, out: Path, tiny: bool) -> None:
        self.out, self.tiny = out, tiny
        self.device = "cpu" if tiny else "cuda"

    def tokens(self, count: int) -> int:
        return min(count, 64) if self.tiny else count

    def model(self, size: str = "0.6B", dtype: torch.dtype = torch.float32) -> Any:
        """A Qwen3 of that size with random weights and the head that SFTTrainer adds."""
        from trl.trainer.utils import add_fused_lm_head

        heads = (2, 16) if self.tiny else (8, 128)
        config = Qwen3Config(
            vocab_size=512 if self.tiny else 151936,
            num_key_value_heads=heads[0],
            head_dim=heads[1],
            tie_word_embeddings=True,
            max_position_embeddings=40960,
            **SHAPES["tiny" if self.tiny else size],
        )
        torch.manual_seed(0)
        with torch.device(self.device):
            model = Qwen3ForCausalLM._from_config(config, dtype=dtype, attn_implementation="sdpa")
        add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
        return model

    def batch(self, rows: int, tokens: int) -> dict[str, Any]:
        ids = torch.randint(3, 500, (rows, self.tokens(tokens)), generator=torch.Generator().manual_seed(1))
        ids = ids.to(self.device)
        return {"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)}

    @contextlib.contextmanager
    def measured(self, into: dict[str, Any]) -> Iterator[None]:
        """Seconds and peak memory of what runs within."""
        if not self.tiny:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
        started = time.perf_counter()
        yield
        if not self.tiny:
            torch.cuda.synchronize()
            into["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        into["s"] = round(time.perf_counter() - started, 4)

    def autocast(self, enabled: bool = True) -> Any:
        return torch.autocast(self.device, torch.bfloat16, enabled=enabled)

    def step(self, model: Any, optimizer: Any, batch: dict[str, Any], factors: Any = None) -> None:
        """One optimizer step in mixed precision, the token losses times `factors`."""
        with self.autocast():
            log_probs = model(**batch, fused_lm_head=True, use_cache=False).log_probs
        (-(log_probs if factors is None else log_probs * factors).sum() / log_probs.numel()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    def evaluator(self, model: Any, batch: dict[str, Any], optimizer: Any = None, bfloat16: bool = True) -> Any:
        """VCORE's evaluations of the model, whose probes are all this batch."""
        from stages.sft.reweighting.evaluation import ModelEvaluator

        forward = model.forward

        def in_mixed_precision(*args: Any, **options: Any) -> Any:
            with self.autocast(bfloat16):
                return forward(*args, **options)

        model.forward = in_mixed_precision
        rows = [{"input_ids": [0]}] * 64
        sizes = {"batch_size": 32, "micro_batch_size": 1, "bfloat16": bfloat16, "seed": 0}
        return ModelEvaluator(model, rows, lambda some: batch, lambda: optimizer, **sizes)

    def fused_head(self) -> dict[str, Any]:
        """Triton compiles, and TRL's fused head gives the log-probabilities of whole logits."""
        found: dict[str, Any] = {"compiler": shutil.which("gcc") or shutil.which("clang")}
        found["Python.h"] = Path(sysconfig.get_paths()["include"], "Python.h").exists()
        model, batch = self.model(), self.batch(2, 512)
        for name, enabled in (("float32", False), ("bfloat16", True)):
            with torch.no_grad(), self.autocast(enabled):
                fused = model(**batch, fused_lm_head=True, use_cache=False).log_probs
                logits = model(input_ids=batch["input_ids"]).logits[:, :-1].float()
            whole = torch.log_softmax(logits, -1).gather(-1, batch["input_ids"][:, 1:, None]).squeeze(-1)
            found[name] = float((fused - whole).abs().max())
        return found | {"ok": found["float32"] < 1e-3 and found["bfloat16"] < 0.5}

    def attention_kernels(self) -> dict[str, Any]:
        """Time and memory of attention by type and mask: the math kernel keeps a square of the length for each head."""
        found = {}
        for dtype in (torch.float32, torch.bfloat16):
            for masked in (False, True):
                length = self.tokens(4096)
                query = torch.randn(1, 32, length, 128, device=self.device, dtype=dtype)
                key = torch.randn(1, 32 if masked else 8, length, 128, device=self.device, dtype=dtype)
                mask = torch.ones(1, 1, length, length, dtype=torch.bool, device=self.device).tril() if masked else None
                with self.measured(found.setdefault(f"{dtype} mask={masked}", {})):
                    torch.nn.functional.scaled_dot_product_attention(
                        query, key, key, attn_mask=mask, is_causal=not masked, enable_gqa=not masked
                    )
        return {**found, "ok": True}

    def determinism(self) -> dict[str, Any]:
        """Whether a training step comes back bit for bit: as stages ask for it (warnings only), and strictly."""
        found: dict[str, dict[str, Any]] = {}
        for name, warn_only in (("warn_only", True), ("strict", False)):
            torch.use_deterministic_algorithms(True, warn_only=warn_only)
            torch.utils.deterministic.fill_uninitialized_memory = False
            found[name], ends = {}, []
            try:
                for _ in range(2):
                    model = self.model()
                    optimizer, batch = torch.optim.AdamW(model.parameters(), 1e-4), self.batch(2, 2048)
                    self.step(model, optimizer, batch)
                    with self.measured(found[name]):
                        for _ in range(4):
                            self.step(model, optimizer, batch)
                    ends.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
                found[name]["equal"] = bool(torch.equal(*ends))
            except RuntimeError as error:  # an operation without a deterministic kernel
                found[name] |= {"equal": False, "error": str(error)[:200]}
        torch.use_deterministic_algorithms(True, warn_only=True)
        return {**found, "ok": found["strict"]["equal"]}

    def memory(self) -> dict[str, Any]:
        """Peaks of two steps of SFT, uniform and VCORE, beside those that were expected."""
        from peft import LoraConfig, get_peft_model

        from stages.sft.method_settings import VcoreSettings
        from stages.sft.reweighting.base import Window
        from stages.sft.reweighting.vcore import Vcore

        found: dict[str, Any] = {}
        cases = (("full", "0.6B", 4096, "uniform"), ("full", "0.6B", 4096, "vcore"), ("lora", "4B", 16384, "vcore"))
        for kind, size, tokens, method in cases:
            model = self.model(size, torch.bfloat16 if kind == "lora" else torch.float32)
            model.gradient_checkpointing_enable({"use_reentrant": False})
            if kind == "lora":
                model = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
                model.enable_input_require_grads()
            model.train()
            trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
            optimizer, batch = torch.optim.AdamW(trained, 1e-5), self.batch(1, tokens)
            mask = torch.ones_like(batch["labels"][:, 1:], dtype=torch.bool)
            evaluator, name = self.evaluator(model, batch, optimizer), f"{kind} {size} {method}"
            vcore = Vcore(VcoreSettings(utility="central_difference", target_rms=0.3))
            with self.measured(found.setdefault(name, {})):
                for number in (1, 2):
                    factors = None
                    if method == "vcore":
                        window = Window([batch], number, int(mask.sum()), 1)
                        [prepared] = vcore.prepare(window, evaluator)
                        vcore.examine(window, evaluator)
                        factors = vcore.weigh(evaluator.losses(batch), mask, prepared)
                    self.step(model, optimizer, batch, factors)
            found[name]["expected_gib"] = EXPECTED_GIB[name]
            del model, optimizer, evaluator, vcore, trained
        near = (
            abs(case["peak_gib"] / case["expected_gib"] - 1) < 0.15 for case in found.values() if "peak_gib" in case
        )
        return {**found, "ok": all(near)}

    def merge(self) -> dict[str, Any]:
        """An adapter's merge after a row of 5,000 tokens, which needs no memory of the GPU."""
        from peft import LoraConfig, get_peft_model

        from stages.training.lora import merge_adapter

        found: dict[str, Any] = {}
        model = self.model("4B", torch.bfloat16)
        adapted = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
        row = self.batch(1, 5000)["input_ids"][0].tolist()
        before = 0.0 if self.tiny else torch.cuda.memory_allocated() / 2**30
        with self.measured(found):
            found["difference"] = merge_adapter(adapted, row, self.out / "adapter")[1]
        return found | {"ok": found.get("peak_gib", 0.0) <= before + 0.1}

    def jvp(self) -> dict[str, Any]:
        """Forward-mode utilities against central differences, in float32 and bfloat16."""
        found: dict[str, Any] = {}
        for name, bfloat16 in (("float32", False), ("bfloat16", True)):
            model, batch = self.model(), self.batch(2, 512)
            evaluator = self.evaluator(model, batch, bfloat16=bfloat16)
            gradient = evaluator.probe_gradient(1 / 32, 0)
            norm = float(torch.nn.utils.get_total_norm(gradient))
            direction, radius = [part / norm for part in gradient], 0.2 if bfloat16 else 0.02
            with self.measured(found.setdefault(name, {})):
                utilities = evaluator.utilities(batch, direction)
            ends = []
            for end in (radius, -radius):
                with evaluator.perturbed(direction, end):
                    ends.append(evaluator.losses(batch))
            both = torch.stack([utilities.flatten(), (ends[0] - ends[1]).flatten() / (2 * radius)])
            found[name]["correlation"] = float(torch.corrcoef(both)[0, 1])
        return {**found, "ok": found["float32"]["correlation"] > 0.99}

    def synchronisations(self) -> dict[str, Any]:
        """What weighing a micro-batch takes between forward and backward, beside the whole step."""
        from stages.sft.method_settings import VcoreSettings
        from stages.sft.reweighting.base import Window
        from stages.sft.reweighting.diagnostics import Concentration
        from stages.sft.reweighting.utility import Differences
        from stages.sft.reweighting.vcore import Vcore

        found: dict[str, Any] = {}
        for rows, tokens in ((8, 300), (1, 5000)):
            model, batch = self.model(), self.batch(rows, tokens)
            mask = torch.ones_like(batch["labels"][:, 1:], dtype=torch.bool)
            vcore = Vcore(VcoreSettings(utility="central_difference", target_rms=0.3))
            assert isinstance(vcore.measurement, Differences)
            vcore.measurement.step, vcore._known = 0.1, True
            vcore._window = Window([], 0, int(mask.sum()), rows)
            losses = torch.rand(mask.shape, device=self.device)
            prepared = {"change": torch.randn_like(losses), "middle": losses + 0.01}
            optimizer, weighing, step = torch.optim.AdamW(model.parameters(), 1e-5), {}, {}
            for into in ({}, weighing):
                with self.measured(into):
                    Concentration().add(vcore.weigh(losses, mask, dict(prepared)), mask)
            self.step(model, optimizer, batch)
            with self.measured(step):
                self.step(model, optimizer, batch)
            found[f"{rows} x {tokens}"] = {"weigh_s": weighing["s"], "step_s": step["s"]}
        return {**found, "ok": True}

    def optimizer(self) -> dict[str, Any]:
        """Adam fused, as it is pinned, and as torch has it by default (foreach): memory, and tokens a second."""
        found: dict[str, Any] = {}
        for name, fused in (("foreach", False), ("fused", True)):
            model, batch = self.model(), self.batch(4, 1024)
            optimizer = torch.optim.AdamW(model.parameters(), 1e-5, fused=fused)
            self.step(model, optimizer, batch)
            with self.measured(found.setdefault(name, {})):
                for _ in range(5):
                    self.step(model, optimizer, batch)
            found[name]["tokens_per_s"] = round(5 * batch["input_ids"].numel() / found[name]["s"])
            del model, optimizer
        return {**found, "ok": True}

    def tf32(self) -> dict[str, Any]:
        """A float32 product in Triton: rounded to TF32 by default, exact as stages are started."""
        if self.tiny:
            return {"ok": None, "skipped": "Triton has no CPU"}
        program, found = Path(__file__).with_name("triton_dot.py"), {}
        for value in ("default", "ieee"):
            wanted = {} if value == "default" else {"TRITON_F32_DEFAULT": value}
            environment = {**os.environ, **wanted, "TRITON_CACHE_DIR": str(self.out / value)}
            done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True)
            if done.returncode:
                return {"ok": False, "error": done.stderr[-300:]}
            found[value] = float(done.stdout)
        return {**found, "ok": found["ieee"] < 1e-4}

    def stages(self) -> dict[str, Any]:
        """The stage programs themselves, on data that they generate: see tools/gpu_stages.py."""
        from tools.gpu_stages import run_stages

        return run_stages(self.out / "stages", self.device, tiny=self.tiny)


def main() -> int:
    """Run the checks in order; 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if not arguments.tiny and not torch.cuda.is_available():
        parser.error("torch sees no GPU; --tiny tries the script on a CPU")
    checks, started, failed = Checks(arguments.out, arguments.tiny), time.monotonic(), 0
    names = "fused_head attention_kernels determinism memory merge jvp synchronisations optimizer tf32 stages"
    device = "cpu" if arguments.tiny else torch.cuda.get_device_name()
    with open(arguments.out / "checks.jsonl", "w", encoding="utf-8") as file:
        for name in names.split():
            row = run_check(getattr(checks, name), started + MOST_S)
            failed += row.get("ok") is False
            line = json.dumps({"check": name, "device": device, **row})
            print(line, flush=True)
            print(line, file=file, flush=True)
    return int(failed > 0)


def run_check(check: Callable[[], dict[str, Any]], deadline: float) -> dict[str, Any]:
    """What a check found, or how it failed."""
    started = time.monotonic()
    if started > deadline:
        return {"ok": None, "skipped": "no time left"}
    try:
        found = check()
    except Exception as error:  # noqa: BLE001 - the others are still to be run
        place = traceback.extract_tb(error.__traceback__)[-1]
        found = {"ok": False, "error": f"{type(error).__name__}: {error}"[:300], "at": f"{place.name}:{place.lineno}"}
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return {**found, "took_s": round(time.monotonic() - started, 1)}


if __name__ == "__main__":
    raise SystemExit(main())
