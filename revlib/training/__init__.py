"""What decides a stored number: maps, tasks, models, and how they are run in any order."""
