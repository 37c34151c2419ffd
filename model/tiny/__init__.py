"""UniPic-tiny: the shapes world, its training, and the small trained checkpoint that ships with the package."""
