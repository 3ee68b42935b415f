"""What each stage trains on, the losses, and the loop that runs them."""
