"""What others learn of an output: its data-set card, and OpenLineage events for data catalogues."""
