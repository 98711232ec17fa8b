"""Find in the data what its settings leave open: files, columns, classes. Imports no torch."""
