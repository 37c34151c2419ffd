"""Runs the stages on Ray Data until every unit is committed or there is a reason to stop."""
