"""Where gradients vanish or explode (Fig. 13)."""
