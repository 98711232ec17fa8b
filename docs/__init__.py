"""The documentation, and the builder of its site."""
