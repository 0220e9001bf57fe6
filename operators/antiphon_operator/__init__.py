"""The Kubernetes operator; operators/README.md is its charter."""
