"""The Thinker as a service."""
