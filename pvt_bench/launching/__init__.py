"""Sweeps: checked and frozen as a whole, started here or on SLURM, watched to their end."""
