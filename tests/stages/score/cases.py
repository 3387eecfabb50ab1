"""A generation as the score stage's tests make it."""

from evaluation.records import Generation, Problem


def generation(
    problem: Problem, completion: str, sample: int = 0, finish_reason: str = "stop", prompt: str = "?"
) -> Generation:
    return Generation(problem.benchmark, problem.id, sample, prompt, completion, finish_reason, 5, 7, 1)
