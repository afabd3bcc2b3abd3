"""What tools/benchmark.py measures: this package against itself, against MindCV and against PyTorch."""
