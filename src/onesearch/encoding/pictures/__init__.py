"""Pictures of items: read safely, encoded by a vision model, joined with texts."""
