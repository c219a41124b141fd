"""What is told about stored rows: criteria, claims, and the reports of chapters."""
