"""Loggers, and the content that they publish to the dashboards."""
