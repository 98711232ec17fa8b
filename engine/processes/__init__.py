"""The processes of one run: ranks, devices, launching, signals, outcome."""
