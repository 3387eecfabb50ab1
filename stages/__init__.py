"""The stages of the pipeline, one package each; every one is a program: `python -m stages.NAME SPEC.json`."""
