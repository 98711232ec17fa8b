"""Hydra's sweeper `optuna`: Thaw's own, as the published plugin pins an old Optuna and can neither prune nor resume."""
