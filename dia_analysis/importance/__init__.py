"""Which earlier layers predict a layer's attention: random forests and their Gini importance (Fig. 11)."""
