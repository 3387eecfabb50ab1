"""The score stage: grading of generations, on no GPU."""

from stages.harness.declaration import StageDeclaration
from stages.score.settings import ScoreSettings

STAGE = StageDeclaration(
    name="score",
    settings=ScoreSettings,
    libraries=("math-verify", "latex2sympy2_extended", "sympy", "evaluate", "numpy"),
    sources=("evaluation/metrics", "evaluation/graders", "evaluation/sandbox"),
    packages=lambda s: s.packages,
)
