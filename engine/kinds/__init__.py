"""What the engine does for each kind of task. `run_folders.kinds` names the classes."""
