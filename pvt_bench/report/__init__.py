"""Tables of measured next to published results; needs no torch."""
