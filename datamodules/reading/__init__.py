"""From files to rows: sources, tables, encodings, labels, splits. Imports no torch."""
