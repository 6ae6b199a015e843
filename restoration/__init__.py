"""What the service and the training job share: photos, tiles, generators, releases, and the restoring itself."""
