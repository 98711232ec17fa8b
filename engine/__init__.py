"""The engine: build objects from a config and run them."""
