"""Images: rows, decoding, storage, transforms."""
