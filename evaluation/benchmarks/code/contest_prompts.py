"""What LiveCodeBench asks with: its texts are part of its protocol and are those of its own runner."""

SYSTEM = (
    "You are an expert Python programmer. You will be given a question (problem specification) and will generate a "
    "correct Python program that matches the specification and passes all tests."
)
STARTER = (
    "You will use the following starter code to write the solution to the problem and enclose your code within "
    "delimiters."
)
READING = (
    "Read the inputs from stdin solve the problem and write the answer to stdout (do not directly test on the sample "
    "inputs). Enclose your code within delimiters as follows. Ensure that when the python program runs, it reads the "
    "inputs, runs the algorithm and writes output to STDOUT."
)


def prompt_of(question: str, starter: str) -> str:
    """The user message; `starter` is the beginning of the class, empty for programs that read standard input."""
    wanted, shown = (STARTER, starter) if starter else (READING, "# YOUR CODE HERE")
    return (
        f"### Question:\n{question}\n\n### Format: {wanted}\n```python\n{shown}\n```\n\n"
        "### Answer: (use the provided format with backticks)\n\n"
    )
