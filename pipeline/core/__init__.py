"""What every package of the pipeline uses: errors, digests, processes and signals."""
