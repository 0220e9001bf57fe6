"""The architecture as it is trained: configuration, first weights, batched forwards over the layers of transformers."""
