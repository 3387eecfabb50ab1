"""`vcore plan CONFIG --estimate`: does it fit, and how long will it take?"""

import dataclasses
import math
import shutil
from pathlib import Path
from typing import Any

import psutil
from rich.markup import escape

from pipeline.cli.printing import err, gib, out, plain_table, print_json, show
from pipeline.config.schema import PipelineConfig, load_config
from pipeline.core.errors import ConfigError
from pipeline.estimate import memory
from pipeline.estimate.cpu import Cost, CpuEstimate
from pipeline.estimate.measure import Measured, Seconds, measuring
from pipeline.estimate.memory import SLACK_GIB, Need
from pipeline.estimate.shape import shape_of
from pipeline.launch.machine import gpus
from pipeline.plan.decide import Options
from pipeline.run.session import plan_only

UNCERTAIN = 0.2
"""Of a time from a measurement on a quiet machine: lengths, starts and ends of stages, and how well one micro-batch
stands for all; from comparing estimates with runs."""
BUSY = 0.1
"""Share of the cores that other programs take, from which on the machine is called busy."""


def print_estimate(path: Path, overrides: list[str], options: Options, as_json: bool) -> None:
    """Of the GPU that is here, or that `execution.device: cuda` asks about; else of this machine's CPU."""
    config = load_config(path, overrides)
    if config.served:
        message = "how fast a server samples is not known here, and it takes no memory of this machine"
        raise ConfigError(message, where="--estimate")
    if config.execution.device == "cuda" or (config.execution.device == "auto" and gpus()):
        _print_gpu_estimate(config, as_json)
        return
    _print_cpu_estimate(path, overrides, options, as_json)


def _print_gpu_estimate(config: PipelineConfig, as_json: bool) -> None:
    """The needs of each GPU stage, by part, beside the memory of the GPU that is here."""
    shape, here = shape_of(config), memory.gpu_memory_gib()
    measure = measuring(config, shape.described, lambda text: err.print(text))
    needs = memory.estimate(config, shape, measure)
    if as_json:
        print_json({"gpu_gib": here, "slack_gib": SLACK_GIB, "stages": [_as_json(need, here) for need in needs]})
        return
    for need in needs:
        _print(need, here)
    if here is None:
        out.print("There is no GPU here to compare with.")


def _as_json(need: Need, here: float | None) -> dict[str, Any]:
    """`total` is the peak on the GPU here, or on the smallest that holds it; `fits` is null where there is no GPU."""
    smallest = need.smallest_gpu if math.isfinite(need.smallest_gpu) else None
    gpu = here or smallest
    return dataclasses.asdict(need) | {
        "total": need.peak(gpu) if gpu is not None else None,
        "smallest_gpu_gib": smallest,
        "fits": here >= need.smallest_gpu if here is not None else None,
    }


def _print(need: Need, here: float | None) -> None:
    gpu = here or need.smallest_gpu
    rows = need.parts | need.engine | {"CUDA context and slack": SLACK_GIB * (bool(need.parts) + bool(need.engine))}
    if math.isfinite(gpu):
        if need.engine:
            rows[f"what vLLM takes, of {gpu:.0f} GiB"] = need.taken_by_engine(gpu)
        if need.sleeps:
            rows["while it trains, vLLM asleep"] = need.training
            rows["while it samples"] = need.waiting + need.taken_by_engine(gpu)
        rows["the most at once"] = need.peak(gpu)
    table = plain_table("what", "GiB", title=need.stage, right="GiB")
    table.show_header = False
    for what, amount in rows.items():
        table.add_row(f"  {what}", f"{amount:8.2f} GiB", style="bold" if what == "the most at once" else None)
    out.print(table)
    for note in need.notes:
        show(f"  {escape(note)}")
    at_least = f"a GPU of {math.ceil(need.smallest_gpu)} GiB or more" if math.isfinite(need.smallest_gpu) else ""
    if not at_least:
        out.print(f"  [red]fits on no GPU[/]: vLLM's share of {need.share:.0%} leaves the trainer nothing")
    elif here is None:
        out.print(f"  needs {at_least}")
    else:
        verdict = "[green]fits[/]" if here >= need.smallest_gpu else "[red]does not fit[/]"
        out.print(f"  {verdict} on {here:.0f} GiB; with these settings it needs {at_least}")
    out.print()


def _print_cpu_estimate(path: Path, overrides: list[str], options: Options, as_json: bool) -> None:
    """Time and memory of each stage that is to run, and the disk they need; measured in a minute or two."""
    config, store, plan = plan_only(path, overrides, options)
    shape = shape_of(config)
    estimate = CpuEstimate(config, plan, shape, measuring(config, shape.described, lambda text: err.print(text)))
    costs = estimate.costs()
    there, free = psutil.virtual_memory().total / 2**30, _free(store.home) / 2**30
    disk = (sum(cost.disk for cost in costs) + max((cost.scratch for cost in costs), default=0.0)) / 2**30
    total = sum((cost.total for cost in costs), Seconds())
    if as_json:
        print_json(
            {
                "memory_gib": there,
                "disk_free_gib": free,
                "disk_gib": disk,
                "stages": [_cost_as_json(cost) for cost in costs],
                "total": _time_as_json(total),
                "at_most": any(cost.at_most for cost in costs),
                "measured": {name: _measured_as_json(measured) for name, measured in estimate.measured.items()},
            }
        )
        return
    others = max((measured.numbers["others"] for measured in estimate.measured.values()), default=0.0)
    busy = others > BUSY
    table = plain_table("stage", "state", "time", *(["as busy as now"] if busy else []), "memory", "made of", fold=True)
    for cost in costs:
        bound = "at most " if cost.at_most else ""
        peak = f"{bound}{gib(cost.memory_gib)}" if cost.memory_gib is not None else ""
        times = [_quiet(cost.times, cost.at_most), *([_duration(cost.total.now)] if busy else [])]
        shown = times if cost.times else [""] * len(times)
        table.add_row(cost.planned.stage.name, cost.planned.state, *shown, peak, escape(cost.note))
    out.print(table)
    cached = sum(cost.planned.state == "HIT" for cost in costs)
    left = [cost.planned.stage.name for cost in costs if cost.planned.state != "HIT" and not cost.times]
    without = f"; not counted: {', '.join(left)}" if left else ""
    without += f"; {cached} cached" if cached else ""
    now = f" on a quiet machine, {_duration(total.now)} as busy as now" if busy else ""
    known = estimate.measured or not left
    whole = _quiet({"": total}, any(cost.at_most for cost in costs)) if known else "nothing was measured"
    show(f"\nAll that is to run: [bold]{whole}[/]{now}{escape(without)}")
    _compare("Memory", max((cost.memory_gib or 0.0 for cost in costs), default=0.0), there, "there are")
    _compare("Disk", disk, free, "free are")
    if not estimate.measured:
        return
    for name, measured in estimate.measured.items():
        show(f"Measured, {name}: {_speeds(measured)}")
    spread = f"± {UNCERTAIN:.0%} for what one measurement leaves out (lengths, how stages begin and end)"
    if busy:
        load = psutil.getloadavg()[0]
        show(
            f"[yellow]The machine is busy: other programs took up to {others:.0%} of its cores meanwhile (load average "
            f"{load:.1f}). Times and rates are those of a quiet machine, calculated from that.[/]"
        )
        spread += ", and half the share that others took"
    show(f"{spread}.")


def _free(home: Path) -> int:
    existing = next(folder for folder in (home, *home.absolute().parents) if folder.exists())
    return shutil.disk_usage(existing).free


def _compare(what: str, needed: float, there: float, verb: str) -> None:
    short = "" if needed <= there else "  [red]too little[/]"
    show(f"{what}: {gib(needed)} at most at once, {verb} {gib(there)}{short}")


def _quiet(times: dict[str, Seconds], at_most: bool) -> str:
    """`at most 2 h 10 min ± 20 % (generate 2 h 00 min, train 10 min)`"""
    total = sum(times.values(), Seconds())
    parts = ", ".join(f"{name} {_duration(time.quiet)}" for name, time in times.items())
    bound, named = "at most " if at_most else "", f" ({parts})" if len(times) > 1 else ""
    return f"{bound}{_duration(total.quiet)} ± {100 * _plus_minus(total):.0f} %{named}"


def _plus_minus(time: Seconds) -> float:
    """Of the time on a quiet machine, relative."""
    return UNCERTAIN + (1 - time.quiet / time.now) / 2 if time.now else 0.0


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def _speeds(measured: Measured) -> str:
    rates = {
        "step_s": "tokens/s forward and backward",
        "forward_s": "tokens/s forward alone",
        "prompt_s": "tokens/s of prompts",
        "token_s": "new tokens/s",
    }
    times = measured.times
    return ", ".join(f"{1 / times[name].quiet:,.0f} {rate}" for name, rate in rates.items() if name in times)


def _time_as_json(time: Seconds) -> dict[str, float]:
    return {
        "seconds": time.quiet,
        "plus_minus": _plus_minus(time),
        "seconds_as_busy_as_now": time.now,
    }


def _cost_as_json(cost: Cost) -> dict[str, Any]:
    return {
        "stage": cost.planned.stage.name,
        "state": cost.planned.state,
        **_time_as_json(cost.total),
        "at_most": cost.at_most,
        "parts": {name: _time_as_json(time) for name, time in cost.times.items()},
        "estimated": bool(cost.times) or cost.planned.state == "HIT",
        "memory_gib": cost.memory_gib,
        "note": cost.note,
    }


def _measured_as_json(measured: Measured) -> dict[str, Any]:
    return {name: _time_as_json(time) for name, time in measured.times.items()} | measured.numbers
