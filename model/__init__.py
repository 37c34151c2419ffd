"""UniPic: one autoregressive model for text-to-image, image editing and image-to-text."""
