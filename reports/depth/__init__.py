"""The parts of pages that answer how deep to thaw."""
