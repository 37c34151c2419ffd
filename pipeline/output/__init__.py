"""Keeps the books of one output folder: layout, receipts, run record, heartbeat, events, reconciliation."""
