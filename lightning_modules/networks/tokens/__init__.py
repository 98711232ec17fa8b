"""Vision transformers with fewer tokens: ToMe, TokenLearner, FDViT."""
