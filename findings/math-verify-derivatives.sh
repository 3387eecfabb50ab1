#!/usr/bin/env bash
# Math-Verify: every derivative of a letter equals every other, and 0; and primes and transposes are not read.
#
# Expected: dy/dx is not dx/dy and not 0; f'(x) is not f(x), y'' + y = 0 is another equation than y' + y = 0, and A^T B another product than
#   AB. An answer that is not equal to the gold one is graded wrong.
# Seen (0.9.0 with latex2sympy2_extended 1.11.0): all of these pairs verify as equal. The parser makes sympy's Derivative of two symbols that do
#   not depend on each other, and the comparison simplifies the difference, which evaluates both to 0. Of f'(x) and A^T it keeps f(x) and a
#   product of a and b, without a word. f^{\prime}(x) is told from f(x), so the same answer is judged by how it is typed.
#   It costs whoever uses it as a reward or a score on calculus, differential equations or matrices: implicit differentiation and "which rate"
#   questions accept any derivative at all, or none.
# Versions: math-verify 0.9.0, latex2sympy2_extended 1.11.0, sympy 1.14.0.
# Takes half a minute and 0.1 GB.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip --disable-pip-version-check install --quiet math-verify==0.9.0 latex2sympy2_extended==1.11.0 antlr4-python3-runtime==4.13.2 sympy==1.14.0

cat >"$folder/pairs.py" <<'EOF'
import sys
from importlib.metadata import version

from math_verify import parse, verify

PAIRS = [
    (r"\frac{dy}{dx}", r"\frac{dx}{dy}"),
    (r"\frac{dy}{dx}", "0"),
    (r"\frac{dx}{dt} = 3", r"\frac{dy}{dt} = 3"),
    ("f'(x)", "f(x)"),
    ("y'' + y = 0", "y' + y = 0"),
    ("A^T B", "A B"),
]
CONTROLS = [("f^{\\prime}(x)", "f(x)"), ("x + 1", "x + 2")]


def equal(gold: str, answer: str) -> bool:
    found = [parse(f"${text}$") for text in (gold, answer)]
    same = verify(*found)
    print(f"{gold:22} and {answer:22} read as {str(found[0][0]):22} and {str(found[1][0]):22} equal: {same}")
    return same


print(*(f"{name} {version(name)}" for name in ("math-verify", "latex2sympy2_extended", "sympy")), sep=", ")
accepted = [equal(*pair) for pair in PAIRS]
refused = [not equal(*pair) for pair in CONTROLS]
if not all(accepted) or not all(refused):
    sys.exit("CHANGED: it is not as described above")
EOF
"$python" "$folder/pairs.py"
