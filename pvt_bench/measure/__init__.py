"""What is measured on a network: its cost, its speed, its average precision."""
