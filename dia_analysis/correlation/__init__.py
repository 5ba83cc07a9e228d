"""How alike the attention maps of a stage's layers are (Fig. 2)."""
