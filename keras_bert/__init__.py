"""BERT written from scratch in Keras on TensorFlow.

The package contains the layers, pretraining, fine-tuning and a command line. The model follows
Devlin, Chang, Lee & Toutanova, BERT (NAACL 2019, arXiv 1810.04805).

The package reads data and writes run folders with Thaw's own code. It never imports torch or
Lightning, not even indirectly. No other package of Thaw imports it.

Importing the package itself does not load TensorFlow. Importing most of its modules does.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # Keras reads it on import
# TensorFlow also raises its errors as exceptions, so its log only adds noise.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
