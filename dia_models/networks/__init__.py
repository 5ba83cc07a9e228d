"""Anyone's network: from this library, timm, torchvision, a model hub or the user's own code, with its weights."""
