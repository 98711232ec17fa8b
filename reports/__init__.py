"""Run folders -> pages. Imports neither torch, lightning nor hydra."""
