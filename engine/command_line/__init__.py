"""What users type on the command line, and the commands that Thaw prints for them."""
