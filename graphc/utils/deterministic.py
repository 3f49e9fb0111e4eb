"""``torch.utils.deterministic``: accepted; ``empty`` gives zeros here, so memory is always filled."""
fill_uninitialized_memory = True
