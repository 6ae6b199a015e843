"""The REST service: HTTP in front, one thread that restores behind."""
