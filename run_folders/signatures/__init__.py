"""The arguments of classes and functions: which there are, and whether values fit them."""
