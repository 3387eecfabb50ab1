"""What the user message says around a problem, for each kind of benchmark."""

from __future__ import annotations

from string import ascii_uppercase


def maths_prompt(question: str) -> str:
    """The instruction the VCORE paper trains and evaluates with (appendix B.3)."""
    return (
        f"You are a helpful and accurate assistant for solving the following math problem:\n{question}\n"
        "Please reason step by step, and put the correct answer within \\boxed{} at last."
    )


def choice_prompt(question: str, options: list[str]) -> str:
    """The maths prompt's instruction, with the options and the letter asked for."""
    listed = "\n".join(f"{letter}) {option}" for letter, option in zip(ascii_uppercase, options, strict=False))
    return (
        f"You are a helpful and accurate assistant for solving the following multiple-choice problem:\n{question}\n{listed}\n"
        "Please reason step by step, and put the letter of the correct option within \\boxed{} at last."
    )


def function_prompt(prompt: str) -> str:
    """The user message for a function to complete."""
    return (
        f"Complete the following Python function.\n\n```python\n{prompt.strip()}\n```\n\n"
        "Put the complete program, with every import and helper it needs, into one Python code block at the end."
    )
