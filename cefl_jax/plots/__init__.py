"""Pictures of a run and of a simulated round."""
