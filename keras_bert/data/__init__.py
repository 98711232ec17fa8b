"""Texts, tokenizers, masking and batches for the Keras BERT."""
