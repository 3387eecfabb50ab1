"""Which benchmarks there are, in which module each one lies, and what it is in a sentence for people.

No stage key holds this file, so nothing here may change a result: prompts, sources, sizes, digests and grading are in
the modules, and a key holds the modules of the benchmarks that its stage uses.
"""

from types import MappingProxyType
from typing import NamedTuple


class Entry(NamedTuple):
    """One benchmark: its module below `evaluation.benchmarks`, and its description."""

    module: str
    description: str


CATALOGUE = MappingProxyType(
    {
        "aime24": Entry("maths.aime24", "American Invitational Mathematics Examination 2024, I and II."),
        "aime25": Entry("maths.aime25", "American Invitational Mathematics Examination 2025, I and II."),
        "aime26": Entry("maths.fresh", "American Invitational Mathematics Examination 2026, I and II."),
        "amc23": Entry("maths.amc23", "American Mathematics Competitions 12A and 12B of 2023, with integer answers."),
        "beyond_aime": Entry("maths.fresh", "A hundred problems harder than AIME's, with integer answers."),
        "brumo25": Entry("maths.fresh", "Brown University Mathematics Olympiad 2025."),
        "gpqa_diamond": Entry("gpqa", "GPQA Diamond: 198 questions by experts in biology, physics and chemistry."),
        "gsm8k": Entry("maths.gsm8k", "Grade-school word problems with an integer answer."),
        "hmmt_feb25": Entry("maths.fresh", "Harvard-MIT Mathematics Tournament, February 2025."),
        "hmmt_feb26": Entry("maths.fresh", "Harvard-MIT Mathematics Tournament, February 2026."),
        "hmmt_nov25": Entry("maths.fresh", "Harvard-MIT Mathematics Tournament, November 2025."),
        "humaneval": Entry("code.humaneval", "Functions to complete from signature and docstring."),
        "humaneval_plus": Entry("code.humaneval_plus", "HumanEval with the test inputs of EvalPlus."),
        "imo_answerbench": Entry("maths.imo_answerbench", "Olympiad problems with short answers, by category."),
        **{
            f"livecodebench_v{number}": Entry(
                "code.livecodebench", f"Programming contests, release v{number}: standard input, or methods."
            )
            for number in range(1, 7)
        },
        "math500": Entry("maths.math500", "Competition mathematics of seven subjects, answers in LaTeX."),
        "mbpp": Entry("code.mbpp", "Mostly basic Python problems, the 500 of the test split."),
        "mbpp_plus": Entry("code.mbpp_plus", "Sanitized MBPP with the test inputs of EvalPlus."),
        "mbpp_sanitized": Entry("code.mbpp", "Mostly basic Python problems, the 427 checked by hand."),
        "ojbench_cpp": Entry("code.ojbench", "Problems of NOI and ICPC, judged by all their cases: programs in C++17."),
        "ojbench_python": Entry("code.ojbench", "The same problems, with programs in Python."),
        "olympiadbench": Entry(
            "maths.olympiadbench", "Olympiad mathematics with numbers, expressions, tuples, intervals."
        ),
        "rbench_t": Entry("choice", "R-Bench-T: graduate-level text questions, six options."),
        "supergpqa": Entry("choice", "A thousand graduate-level questions of 285 disciplines, up to ten options."),
        "svamp": Entry("maths.svamp", "One-step word problems that key words alone mislead; its last 300 problems."),
        "noisy_word_problems": Entry(
            "generated.noisy_word_problems", "Word problems with demonstrations that have wrong steps and remarks."
        ),
        "tiny_code": Entry("generated.tiny_code", "Synthetic Python functions of two or three arithmetic operations."),
        "word_problems": Entry("generated.word_problems", "Synthetic word problems of two to four operations."),
    }
)
"""Name -> entry, benchmarks of the field first, then the generated tasks."""
