"""The same rounds in PyTorch, as a good PyTorch user would write them: what ours is measured by."""
