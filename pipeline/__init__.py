"""The orchestrator: config, plan, artifact store, process launch, Prefect flow and CLI. Imports no torch, trl or
vllm."""
