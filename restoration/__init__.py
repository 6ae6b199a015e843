"""What the service and the training job share: photos, tiles, generators, releases, and the restoring itself."""

__version__ = "0.1.0"
