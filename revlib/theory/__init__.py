"""The mathematics of the book, one module a subject, each formula tested against numbers."""
