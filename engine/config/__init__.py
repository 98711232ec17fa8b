"""The config: composed, validated, redacted."""
