"""UniPic Batch: turns manifests of prompts and images into images, edits and captions, every output accounted for."""
