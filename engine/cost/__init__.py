"""What a run would cost: measured on a small part of its data, in a process of its own."""
