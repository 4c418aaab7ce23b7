"""Learning from unlabelled micrographs."""
