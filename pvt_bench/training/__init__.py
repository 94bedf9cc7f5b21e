"""How a network is trained: optimizers and schedules, checkpoints, interruptions."""
