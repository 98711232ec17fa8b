"""BERT written from scratch in Keras on TensorFlow: its layers, pretraining, fine-tuning, and a command line.

After Devlin, Chang, Lee & Toutanova, BERT (NAACL 2019, arXiv 1810.04805). The package reads files
and writes run folders with Thaw's own code. It never imports torch or Lightning, not even through
that code. Nothing of Thaw imports it.

Importing the package itself loads no TensorFlow; its modules do.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # before anything imports keras
os.environ.setdefault(
    "TF_CPP_MIN_LOG_LEVEL", "3"
)  # what goes wrong is raised as well; its own log is noise
