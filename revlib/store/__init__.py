"""Results, where they come from, and data sets: keeps numbers, decides none."""
