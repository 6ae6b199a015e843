"""Whole collections: a tool that drives them through a service or a device, and the service's Python client."""
