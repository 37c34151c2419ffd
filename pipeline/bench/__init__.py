"""Measures planning, orchestration and auditing."""
