"""What every room of the pipeline uses: errors, digests, JSON read back, processes and signals."""
