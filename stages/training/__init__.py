"""What SFT and RL share: torch's set-up, trainer options, checkpoints, proof, the training loop."""
