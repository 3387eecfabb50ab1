"""What the user message says around a problem, for each kind of benchmark."""

from string import ascii_uppercase


def maths_prompt(question: str) -> str:
    """The instruction that the VCORE paper trains and evaluates with (appendix B.3)."""
    return (
        f"You are a helpful and accurate assistant for solving the following math problem:\n{question}\n"
        "Please reason step by step, and put the correct answer within \\boxed{} at last."
    )


def choice_prompt(question: str, options: list[str]) -> str:
    """The instruction for multiple choice: that for maths, with the options, and with the letter as the answer."""
    listed = "\n".join(f"{letter}) {option}" for letter, option in zip(ascii_uppercase, options, strict=False))
    return (
        "You are a helpful and accurate assistant for solving the following multiple-choice problem:\n"
        f"{question}\n{listed}\n"
        "Please reason step by step, and put the letter of the correct option within \\boxed{} at last."
    )


def function_prompt(beginning: str) -> str:
    """The instruction to complete a function whose signature and docstring are given."""
    return (
        f"Complete the following Python function.\n\n```python\n{beginning.strip()}\n```\n\n"
        "Put the complete program, with every import and helper it needs, into one Python code block at the end."
    )


def program_prompt(task: str) -> str:
    """The instruction to write a program for a task that is described in words."""
    return f"{task}\n\nPut the complete program, with every import it needs, into one Python code block at the end."
