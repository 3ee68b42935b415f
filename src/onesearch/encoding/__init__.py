"""Text to vectors to semantic IDs: text encoders, their alignment, keyword fusion, residual k-means, OPQ."""
