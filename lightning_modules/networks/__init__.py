"""Plain torch modules, usable without a Trainer."""
