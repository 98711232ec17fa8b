"""Features of frozen layers: planned, computed once, stored."""
