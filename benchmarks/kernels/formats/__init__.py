"""The official file formats: definition, workload, solution, trace. No torch, no process, no network."""
