"""Starting a stage's process: on this machine, under torchrun or accelerate, or as a Slurm job."""
