"""The shapes world: scenes, prompts, an independent detector, a split with held-out combinations, and scores."""
