"""Memory and time on a GPU, estimated before anything is loaded (`vcore plan --estimate`)."""
