"""Notes about birds, classified and weighed with Thaw."""
