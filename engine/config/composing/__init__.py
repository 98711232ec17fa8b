"""From overrides and files to a composed config. Imports no other part of `engine/`."""
