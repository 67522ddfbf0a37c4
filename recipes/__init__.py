"""Networks trained with PyTorch and served by recfuse: ``python -m recipes.two_tower``."""
