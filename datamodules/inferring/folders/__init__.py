"""Find the settings of datasets of image files in the names of folders and files, and in masks."""
