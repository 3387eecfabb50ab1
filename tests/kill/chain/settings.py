"""Settings of the chain stage."""

from stages.harness.settings import StageSettings, execution, identity


class ChainSettings(StageSettings):
    """`checkpoint_steps` 0: a stage that keeps no state and starts over."""

    steps: int = identity(40)
    checkpoint_steps: int = execution(5)
    step_s: float = execution(0.02)
