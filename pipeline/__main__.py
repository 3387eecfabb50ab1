"""`python -m pipeline` is `vcore`."""

from pipeline.cli import main

main()
