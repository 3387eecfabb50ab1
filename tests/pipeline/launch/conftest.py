"""Fixtures of the launcher's tests."""

from tests.pipeline.launch.slurm_cluster import cluster, cluster_config

__all__ = ["cluster", "cluster_config"]
