"""Pretraining and fine-tuning of the Keras BERT."""
