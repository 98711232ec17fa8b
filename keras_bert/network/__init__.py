"""Layers and models of the Keras BERT."""
