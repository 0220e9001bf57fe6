"""What a decoder computes beside its large matrix products: in plain torch for every device, and fused for CUDA."""
