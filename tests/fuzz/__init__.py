"""What coverage-guided fuzzing found, and the harness that finds it."""
