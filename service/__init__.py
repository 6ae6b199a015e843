"""The REST service: HTTP in front, threads that restore behind."""
