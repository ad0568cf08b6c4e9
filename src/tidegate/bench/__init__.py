"""The laboratory: workloads, load, reports."""
