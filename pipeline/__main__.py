"""`python -m pipeline` is `vcore`."""

from pipeline.cli.app import main

main()
