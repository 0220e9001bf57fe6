"""The architecture as it is trained: configuration, first weights, and batched forwards over the layers of transformers."""
