"""The commands of `thaw`, one module each. `train.py` and `scripts/` call the same functions."""

from thaw.installation import installation_fault

_fault = installation_fault()
if _fault:
    msg = f"error: {_fault}"
    raise SystemExit(msg)
