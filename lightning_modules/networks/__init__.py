"""Networks as plain torch modules, usable without a Trainer."""
