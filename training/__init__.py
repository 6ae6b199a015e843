"""The training job: pairs, losses, trainer, evaluation, publishing."""
