"""The Talker as a service."""
