"""A day of traffic on hundreds of replicas, simulated, with the policies and the placement that the platform runs."""
