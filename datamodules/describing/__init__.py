"""Describe a folder or table before training: what is in it, and the config that reads it.

Imports neither torch nor lightning, so that a description starts fast.
"""
