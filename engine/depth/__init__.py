"""How deep to thaw a backbone: probes of its layers and what they advise."""
