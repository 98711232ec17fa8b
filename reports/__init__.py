"""HTML reports from run folders. The package imports neither torch, lightning nor hydra."""
