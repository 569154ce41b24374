"""Our own performance table: `python -m tests.bench --help`. A part is one module with one figure."""
