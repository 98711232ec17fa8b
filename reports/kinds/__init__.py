"""The report's parts for each kind of task. `run_folders.kinds` names the classes."""
