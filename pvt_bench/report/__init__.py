"""Tables of what was measured, beside what was published; without torch."""
