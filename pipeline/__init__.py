"""From manifests to committed parts: units, replicas, receipts, lineage."""
