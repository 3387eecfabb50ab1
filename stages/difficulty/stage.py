"""The difficulty stage: which prompts a checkpoint solves sometimes, and whether RL may start from it."""

from stages.difficulty.settings import DifficultySettings
from stages.harness.declaration import StageDeclaration

STAGE = StageDeclaration(
    name="difficulty",
    settings=DifficultySettings,
    libraries=("math-verify", "latex2sympy2_extended", "sympy"),
    sources=("evaluation/graders", "evaluation/sandbox"),
    packages=lambda s: s.scoring.packages,
)
