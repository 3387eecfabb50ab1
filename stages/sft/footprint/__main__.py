"""`python -m stages.sft.footprint SPEC.json`: what a training step of a model of a given shape takes in memory.

Started by `vcore plan CONFIG --estimate`. It needs the model's config.json alone and allocates nothing of its size.
"""

from transformers import AutoConfig

from stages.harness.context import Context, Result
from stages.harness.process import run_stage
from stages.harness.settings import StageSettings, execution
from stages.sft.footprint.step import Step, peaks_of
from stages.sft.method_settings import MethodSettings, UniformSettings
from stages.training.settings import LoraSettings


class FootprintSettings(StageSettings):
    """The attributes of a `Step`."""

    method: MethodSettings = execution(UniformSettings())
    rows: int = execution(gt=0)
    length: int = execution(gt=1)
    batch_size: int = execution(gt=0)
    dtype: str = execution()
    lora: LoraSettings | None = execution(None)
    gradient_checkpointing: bool = execution(False)
    scored: float = execution(1.0, gt=0, le=1)
    padded: bool = execution(False)
    share: float = execution(1.0, gt=0, le=1)
    on_gpu: bool = execution(True)


def run(ctx: Context[FootprintSettings]) -> Result:
    """Compute a step of the model of `inputs["model"]/config.json`. The metrics are bytes of tensors: `rest`, `others`,
    and the peak of each part of the step under its name (`Peaks`)."""
    step = Step(**{name: getattr(ctx.settings, name) for name in FootprintSettings.model_fields})
    peaks = peaks_of(step, AutoConfig.from_pretrained(ctx.inputs["model"]))
    return Result({"computed": True}, {"rest": peaks.rest, "others": peaks.others, **peaks.phases})


if __name__ == "__main__":
    run_stage(FootprintSettings, run)
