"""Notes about birds, classified with Thaw."""
