"""Reading of files: sources, tables, encodings, labels and splits. Imports no torch."""
