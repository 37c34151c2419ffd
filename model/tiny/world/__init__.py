"""The shapes world: scenes, prompts, edits, an independent detector, a held-out split, and scores."""
