"""Tests of the package `thaw`."""
