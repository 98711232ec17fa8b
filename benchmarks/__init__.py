"""What is measured against peers; each module is one command: `python -m benchmarks.image_input`."""
