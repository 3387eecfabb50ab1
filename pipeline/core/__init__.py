"""What every room of the pipeline uses: errors, digests, processes and signals."""
