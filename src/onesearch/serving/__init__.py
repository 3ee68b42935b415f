"""The HTTP service, its stores and its web page."""
