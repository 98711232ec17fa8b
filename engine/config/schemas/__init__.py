"""JSON schemas of the config groups, for editors. They follow the signatures."""
