"""Run folders, sweeps and error messages. Every other package may import this one."""
